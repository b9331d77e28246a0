package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/cleatkv/cleat/internal/cli"
)

// A backup is a directory of two files, as "nats stream backup" makes it and "nats stream restore" takes it.
const (
	backupMeta    = "backup.json"
	backupArchive = "stream.tar.s2"
	backupChunk   = 128 << 10
	backupFinish  = 5 * time.Minute // for what a server has to do when it has everything
)

// backupRecord is the answer of backup; Bytes is the size of the archive.
type backupRecord struct {
	Bucket    string `json:"bucket"`
	Values    uint64 `json:"values"`
	Bytes     int64  `json:"bytes"`
	Directory string `json:"directory"`
}

func (k *kvCommand) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup <bucket> <directory>",
		Short: "Make a backup of a bucket",
		Long: `Writes the bucket as it is at this moment into a new directory: all revisions that are kept, with their times.
The nats tool can restore it too: nats stream restore.`,
		Args: cli.Args("<bucket> <directory>"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return k.completeBucket(cmd, args, prefix)
		},
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			return r.backup(ctx, args[0], args[1])
		}),
	}
}

func (k *kvCommand) restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restore <directory>",
		Short: "Make a bucket of a backup",
		Long: `Makes a bucket of a backup, under the name that it had and with the same revisions. A bucket of that name must
not be there. Backups of the nats tool are taken too.`,
		Args: cli.Args("<directory>"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: k.run(func(ctx context.Context, r *clientRun, args []string) error {
			return r.restore(ctx, args[0])
		}),
	}
}

// backupInfo is the first file, and what a server says before it sends the second one.
type backupInfo struct {
	Config json.RawMessage       `json:"config"`
	State  jetstream.StreamState `json:"state"`
}

func (r *clientRun) backup(ctx context.Context, bucket, dir string) (err error) {
	if _, err := r.JS.KeyValue(ctx, bucket); err != nil {
		return explain(err, bucket, "")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return &cli.Error{Code: cli.ExitUsage, Err: err, Hints: []string{"a backup goes into a directory that is not there yet"}}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir)) // A part of a backup is none.
		}
	}()
	f, err := os.OpenFile(filepath.Join(dir, backupArchive), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, size, err := r.receiveBackup(ctx, "KV_"+bucket, f)
	if err != nil {
		return explain(err, bucket, "")
	}
	meta, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), os.WriteFile(filepath.Join(dir, backupMeta), meta, 0o600)); err != nil {
		return err
	}
	if r.out.Structured() {
		return r.out.Object(backupRecord{bucket, info.State.Msgs, size, dir})
	}
	r.out.Printf("Backup of bucket %s: %d values, %s in %s\n", bucket, info.State.Msgs, cli.Bytes(uint64(size)), dir)
	return nil
}

// receiveBackup asks for a backup and writes it to w.
func (r *clientRun) receiveBackup(ctx context.Context, stream string, w io.Writer) (info *backupInfo, size int64, err error) {
	inbox := nats.NewInbox()
	sub, err := r.Conn.SubscribeSync(inbox)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = sub.Unsubscribe() }() // The connection ends soon.
	if err := errors.Join(sub.SetPendingLimits(-1, -1), r.Conn.FlushTimeout(r.Timeout)); err != nil {
		return nil, 0, err
	}
	request, err := json.Marshal(map[string]any{"deliver_subject": inbox, "chunk_size": backupChunk})
	if err != nil {
		return nil, 0, err
	}
	info = new(backupInfo)
	if err := r.streamRequest(ctx, "STREAM.SNAPSHOT."+stream, request, info); err != nil {
		return nil, 0, err
	}
	for {
		m, err := r.nextChunk(ctx, sub)
		switch {
		case err != nil:
			return nil, 0, fmt.Errorf("the backup ended after %d bytes: %w", size, err)
		case len(m.Data) == 0:
			if status := m.Header.Get("Status"); status != "" && status != "204" {
				return nil, 0, fmt.Errorf("the server gave up the backup: %s %s", status, m.Header.Get("Description"))
			}
			return info, size, nil
		}
		n, err := w.Write(m.Data)
		if size += int64(n); err != nil {
			return nil, 0, err
		}
		if m.Reply != "" {
			if err := m.Respond(nil); err != nil {
				return nil, 0, err
			}
		}
	}
}

func (r *clientRun) nextChunk(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// streamRequest sends a request to the JetStream API and decodes the answer.
func (r *clientRun) streamRequest(ctx context.Context, subject string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	prefix := strings.TrimSuffix(r.JS.Options().APIPrefix, ".")
	if prefix == "" {
		prefix = "$JS.API"
	}
	m, err := r.Conn.RequestWithContext(ctx, prefix+"."+subject, body)
	if err != nil {
		return err
	}
	return decodeAnswer(m.Data, into)
}

// decodeAnswer decodes an answer of the API; one that is a refusal is an error.
func decodeAnswer(b []byte, into any) error {
	var refused struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(b, &refused); err != nil {
		return fmt.Errorf("the server's answer makes no sense: %w", err)
	}
	if refused.Error != nil {
		return refused.Error
	}
	return json.Unmarshal(b, into)
}

func (r *clientRun) restore(ctx context.Context, dir string) error {
	meta, err := os.ReadFile(filepath.Join(dir, backupMeta))
	if err != nil {
		return &cli.Error{Code: cli.ExitUsage, Err: err, Hints: []string{"give the directory that cleat kv backup or nats stream backup made"}}
	}
	var what struct {
		Config struct {
			Name string `json:"name"`
		} `json:"config"`
	}
	if err := json.Unmarshal(meta, &what); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, backupMeta), err)
	}
	bucket, ok := strings.CutPrefix(what.Config.Name, "KV_")
	if !ok {
		return &cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("%s is the backup of stream %q, which is no bucket", dir, what.Config.Name),
			Hints: []string{"restore it with the nats tool: nats stream restore " + dir}}
	}
	f, err := openArchive(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.sendBackup(ctx, what.Config.Name, meta, f); err != nil {
		return explain(err, bucket, "")
	}
	kv, err := r.JS.KeyValue(ctx, bucket)
	if err != nil {
		return explain(err, bucket, "")
	}
	return r.showStatus(ctx, kv)
}

// openArchive opens the second file, which newer versions of the nats tool name in another way.
func openArchive(dir string) (*os.File, error) {
	f, err := os.Open(filepath.Join(dir, backupArchive))
	if errors.Is(err, os.ErrNotExist) {
		if other, e := os.Open(filepath.Join(dir, "stream.arc.s2")); e == nil {
			return other, nil
		}
	}
	return f, err
}

// sendBackup sends a backup piece by piece, each when the server has taken the one before.
func (r *clientRun) sendBackup(ctx context.Context, stream string, meta []byte, archive io.Reader) error {
	var to struct {
		Subject string `json:"deliver_subject"`
	}
	if err := r.streamRequest(ctx, "STREAM.RESTORE."+stream, meta, &to); err != nil {
		return err
	}
	chunk := make([]byte, backupChunk)
	for {
		n, err := io.ReadFull(archive, chunk)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		wait, stop := context.WithTimeout(ctx, backupFinish)
		m, err := r.Conn.RequestWithContext(wait, to.Subject, chunk[:n])
		stop()
		switch {
		case err != nil:
			return err
		case n == 0 || len(m.Data) > 0: // The last one, or a refusal.
			return decodeAnswer(m.Data, new(struct{}))
		}
	}
}
