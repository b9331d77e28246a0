package cli

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// writeContexts makes a configuration directory with two contexts, the first of them selected.
func writeContexts(t *testing.T) {
	t.Helper()
	for name := range envOf {
		t.Setenv(envOf[name], "")
	}
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	dir := filepath.Join(home, "nats", "context")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		filepath.Join(dir, "local.json"):                `{"description":"d","url":"nats://local:1","user":"lu","password":"lp","jetstream_domain":"ld","color_scheme":"red"}`,
		filepath.Join(dir, "prod.json"):                 `{"url":"nats://prod:1","creds":"~/p.creds","ca":"$CERTS/ca.pem","tls_first":true,"socks_proxy":"socks5://p"}`,
		filepath.Join(dir, "bad.json"):                  `{`,
		filepath.Join(home, "nats", "context.txt"):      "local\n",
		filepath.Join(home, "elsewhere.json"):           `{"url":"nats://elsewhere:1"}`,
		filepath.Join(home, "nats", "context", "x.txt"): "",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func resolveArgs(t *testing.T, args ...string) (Settings, string, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o := new(Options)
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o.resolve()
}

func TestContextIsOverriddenByEnvironmentAndFlags(t *testing.T) {
	writeContexts(t)
	s, name, err := resolveArgs(t)
	if err != nil || name != "local" || s.URL != "nats://local:1" || s.User != "lu" || s.Password != "lp" || s.JSDomain != "ld" {
		t.Fatalf("selected context: %+v, %q, %v", s, name, err)
	}
	t.Setenv("NATS_URL", "nats://env:1")
	t.Setenv("NATS_PASSWORD", "ep")
	if s, _, _ = resolveArgs(t); s.URL != "nats://env:1" || s.User != "lu" || s.Password != "ep" {
		t.Errorf("environment over context: %+v", s)
	}
	if s, _, _ = resolveArgs(t, "-s", "nats://flag:1", "--creds", "f.creds"); s.URL != "nats://flag:1" || s.Creds != "f.creds" || s.User != "" {
		t.Errorf("flags over environment, and credentials in place of the user: %+v", s)
	}
	t.Setenv("NATS_PASSWORD", "")
	if s, _, _ = resolveArgs(t, "--user", "tok"); s.User != "" || s.Token != "tok" {
		t.Errorf("a user without a password is a token: %+v", s)
	}
	if s, name, _ = resolveArgs(t, "--no-context"); name != "" || s.User != "" || s.URL != "nats://env:1" {
		t.Errorf("no context: %+v, %q", s, name)
	}
}

func TestContextByNameAndByFile(t *testing.T) {
	writeContexts(t)
	t.Setenv("HOME", "/home/me")
	t.Setenv("CERTS", "/certs")
	t.Setenv("NATS_CONTEXT", "prod")
	s, name, err := resolveArgs(t)
	if err != nil || name != "prod" || s.Creds != "/home/me/p.creds" || s.CA != "/certs/ca.pem" || !s.TLSFirst {
		t.Errorf("prod: %+v, %q, %v", s, name, err)
	}
	if s, _, _ = resolveArgs(t, "--socks-proxy", "none"); s.SocksProxy != "" {
		t.Errorf("--socks-proxy none: %q", s.SocksProxy)
	}
	file := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "elsewhere.json")
	if s, name, err = resolveArgs(t, "--context", file); err != nil || name != "elsewhere" || s.URL != "nats://elsewhere:1" {
		t.Errorf("file: %+v, %q, %v", s, name, err)
	}
	for _, bad := range []string{"nope", "../x", "bad"} {
		if _, _, err := resolveArgs(t, "--context", bad); err == nil {
			t.Errorf("context %q: no error", bad)
		}
	}
	if got := ContextNames(); !slices.Equal(got, []string{"bad", "local", "prod"}) {
		t.Errorf("names: %q", got)
	}
}

func TestSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(file, []byte("from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CLEAT_TEST_SECRET", "from env")
	for ref, want := range map[string]string{
		"plain:text":                "plain:text",
		"file://" + file:            "from file",
		"ENV://CLEAT_TEST_SECRET":   "from env",
		"data:;base64,ZnJvbSBkYXRh": "from data",
	} {
		if got, err := literal(ref); err != nil || got != want {
			t.Errorf("literal(%q) = %q, %v, want %q", ref, got, err, want)
		}
	}
	for _, ref := range []string{"env://CLEAT_TEST_NO_SUCH", "data:nope", "file:///no/such"} {
		if got, err := literal(ref); err == nil {
			t.Errorf("literal(%q) = %q, want an error", ref, got)
		}
	}
}

func TestRedactURL(t *testing.T) {
	got := redactURL("nats://u:secret@a:1,nats://token@b:2,c:3")
	if strings.Contains(got, "secret") || strings.Contains(got, "token") || !strings.Contains(got, "a:1") || !strings.Contains(got, "c:3") {
		t.Errorf("redacted: %s", got)
	}
}

func TestNumericArgs(t *testing.T) {
	root := &cobra.Command{Use: "cleat"}
	root.PersistentFlags().StringP("server", "s", "", "")
	kv := &cobra.Command{Use: "kv"}
	put := &cobra.Command{Use: "put", Run: func(*cobra.Command, []string) {}}
	put.Flags().String("file", "", "")
	put.Flags().BoolP("force", "f", false, "")
	root.AddCommand(kv)
	kv.AddCommand(put)
	for in, want := range map[string]string{
		"kv put b k v":                      "kv put b k v",
		"kv put b k -1":                     "kv put -- b k -1",
		"kv put b k -.5 -s url":             "kv put -s url -- b k -.5",
		"-s url kv put -f b k -1":           "kv put -s url -f -- b k -1",
		"kv put --file=x b k -1 --server u": "kv put --file=x --server u -- b k -1",
		"kv put --file -1 b k":              "kv put --file -1 b k",
		"kv put b k -- -1":                  "kv put b k -- -1",
		"kv put b k -x":                     "kv put b k -x",
		"kv":                                "kv",
	} {
		if got := strings.Join(NumericArgs(root, strings.Fields(in)), " "); got != want {
			t.Errorf("NumericArgs(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	api := func(code int, number jetstream.ErrorCode) error {
		return &jetstream.APIError{Code: code, ErrorCode: number}
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, ExitOK},
		{errors.New("x"), ExitGeneral},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, ExitGeneral},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, ExitUnavailable},
		{Usagef("x"), ExitUsage},
		{jetstream.ErrBucketNotFound, ExitNotFound},
		{jetstream.ErrKeyNotFound, ExitNotFound},
		{errors.Join(jetstream.ErrBucketExists, api(400, 10058)), ExitConflict},
		{api(400, 10071), ExitConflict},
		{api(400, 10164), ExitConflict},
		{api(503, 10008), ExitUnavailable},
		{api(503, 10039), ExitAuth},
		{api(400, 10077), ExitGeneral},
		{api(404, 10059), ExitNotFound},
		{ErrCancelled, ExitCancelled},
		{ErrInterrupted, ExitInterrupted},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("ExitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestReport(t *testing.T) {
	var b strings.Builder
	code := Report(&b, &Error{Code: 3, Err: errors.New("nats: key not found"), Hints: []string{"look"}})
	if want := "cleat: error: key not found\n  look\n"; b.String() != want || code != 3 {
		t.Errorf("%d %q, want %q", code, b.String(), want)
	}
	b.Reset()
	if code := Report(&b, ErrCancelled); b.String() != "" || code != ExitCancelled {
		t.Errorf("cancelled: %d %q", code, b.String())
	}
}
