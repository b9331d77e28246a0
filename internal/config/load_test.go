package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/nats-io/nats-server/v2/server"
)

// TestLoad reads small files and says what became of them: the error, or the warnings and the
// values asked for. With them stands what nats-server says of the same file, when it differs.
func TestLoad(t *testing.T) {
	datadriven.Walk(t, "testdata/load", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			t.Setenv("SERVER_NAME", "n1")
			dir := t.TempDir()
			file := filepath.Join(dir, "f.conf")
			if err := os.WriteFile(file, []byte(d.Input), 0o600); err != nil {
				t.Fatal(err)
			}
			clean := func(s string) string { return strings.TrimRight(strings.ReplaceAll(s, dir+"/", ""), "\n") }

			ours := "ok"
			c, err := Load(&Flags{ConfigFile: file, Strict: d.HasArg("strict")})
			if err != nil {
				ours = clean(err.Error())
			} else if len(c.Misuses) > 0 {
				ours = clean(strings.Join(c.Misuses, "\n"))
			}
			theirs := reference(file, ours)

			var out strings.Builder
			fmt.Fprintln(&out, ours)
			if c != nil {
				for _, w := range c.Warnings {
					fmt.Fprintln(&out, "warning:", clean(w))
				}
				for _, arg := range d.CmdArgs {
					if arg.Key == "show" {
						show(&out, c, arg.Vals)
					}
				}
			}
			if theirs != ours {
				fmt.Fprintln(&out, "reference:", theirs)
			}
			return out.String()
		})
	})
}

// reference returns what nats-server -t says of a file. It reads blocks in random order and stops
// somewhere, so this is the first in the alphabet of all that it says, or ours if that is among it.
func reference(file, ours string) string {
	best := ""
	for range 30 {
		said := "ok"
		o := new(server.Options)
		if err := o.ProcessConfigFile(file); err != nil {
			lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
			slices.Sort(lines)
			said = strings.ReplaceAll(strings.Join(lines, "\n"), filepath.Dir(file)+"/", "")
		}
		if said == ours {
			return said
		}
		if best == "" || said < best {
			best = said
		}
	}
	return best
}

func show(out *strings.Builder, c *Config, parts []string) {
	for _, p := range parts {
		switch p {
		case "listen":
			fmt.Fprintf(out, "listen: %s:%d loopbackonly=%v\n", c.Host, c.Port, c.LoopbackOnly)
		case "names":
			fmt.Fprintf(out, "names: server=%q cluster=%q tags=%v\n", c.ServerName, c.Cluster.Name, c.ServerTags)
		case "limits":
			fmt.Fprintf(out, "limits: %+v\n", c.Limits)
		case "jetstream":
			fmt.Fprintf(out, "jetstream: %+v\n", c.JetStream)
		case "cluster":
			fmt.Fprintf(out, "cluster: %+v\n", c.Cluster)
		case "monitor":
			fmt.Fprintf(out, "monitor: %+v\n", c.Monitor)
		case "log":
			fmt.Fprintf(out, "log: %+v\n", c.Log)
		case "lameduck":
			fmt.Fprintf(out, "lameduck: %+v\n", c.LameDuck)
		case "kv":
			fmt.Fprintf(out, "kv: %+v\n", c.KV)
		case "websocket":
			fmt.Fprintf(out, "websocket: %+v\n", c.WebSocket)
		case "auth":
			showAuth(out, c)
		}
	}
}

func showAuth(out *strings.Builder, c *Config) {
	fmt.Fprintf(out, "auth: required=%v user=%q password=%q token=%q timeout=%v no_auth_user=%q system=%q\n",
		c.AuthRequired(), c.Auth.User, c.Auth.Password, c.Auth.Token, c.Auth.Timeout, c.NoAuthUser, c.SystemAccount)
	for _, u := range c.Auth.Users {
		showUser(out, "", u)
	}
	for _, a := range c.Accounts {
		fmt.Fprintf(out, "account %s: jetstream=%v", a.Name, a.JetStream != nil)
		if a.JetStream != nil {
			fmt.Fprintf(out, " %+v", *a.JetStream)
		}
		if a.Limits != newAccount("").Limits {
			fmt.Fprintf(out, " limits=%+v", a.Limits)
		}
		for _, e := range a.Exports {
			fmt.Fprintf(out, "\n  export %+v", e)
		}
		for _, i := range a.Imports {
			fmt.Fprintf(out, "\n  import %+v", i)
		}
		fmt.Fprintln(out)
		for _, u := range a.Users {
			showUser(out, a.Name, u)
		}
	}
}

func showUser(out *strings.Builder, account string, u *User) {
	fmt.Fprintf(out, "  user %s%s password=%q account=%q", u.Name, u.NKey, u.Password, account)
	if p := u.Permissions; p != nil {
		if p.Publish != nil {
			fmt.Fprintf(out, " publish=%s-%q", allowed(p.Publish), p.Publish.Deny)
		}
		if p.Subscribe != nil {
			fmt.Fprintf(out, " subscribe=%s-%q", allowed(p.Subscribe), p.Subscribe.Deny)
		}
		if p.Responses != nil {
			fmt.Fprintf(out, " responses=%d/%v", p.Responses.MaxMsgs, p.Responses.Expires)
		}
	}
	if len(u.AllowedConnectionTypes) > 0 {
		fmt.Fprintf(out, " types=%v", u.AllowedConnectionTypes)
	}
	fmt.Fprintln(out)
}

// allowed tells no allow list, which means everything, from an empty one, which means nothing.
func allowed(p *SubjectPermission) string {
	if p.Allow == nil {
		return "all"
	}
	return fmt.Sprintf("%q", p.Allow)
}
