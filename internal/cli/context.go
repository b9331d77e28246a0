package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Settings says where to connect and how. Its JSON form is a context file of the nats tool; a path in
// it may start with ~ and contain environment variables, and a secret may be a reference (see secret).
type Settings struct {
	Description string `json:"description"`
	URL         string `json:"url"`
	SocksProxy  string `json:"socks_proxy"`
	Token       string `json:"token"`
	User        string `json:"user"`
	Password    string `json:"password"`
	Creds       string `json:"creds"`
	NKey        string `json:"nkey"`
	Cert        string `json:"cert"`
	Key         string `json:"key"`
	CA          string `json:"ca"`
	NSC         string `json:"nsc"`
	JSDomain    string `json:"jetstream_domain"`
	JSAPIPrefix string `json:"jetstream_api_prefix"`
	InboxPrefix string `json:"inbox_prefix"`
	UserJWT     string `json:"user_jwt"`
	UserSeed    string `json:"user_seed"`
	ColorScheme string `json:"color_scheme"`
	TLSFirst    bool   `json:"tls_first"`

	WindowsCertStore string `json:"windows_cert_store"`
}

// configHome is $XDG_CONFIG_HOME, by default ~/.config.
func configHome() (string, error) {
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the context files: %w", err)
	}
	return filepath.Join(home, ".config"), nil
}

// ContextNames lists the contexts that exist, sorted. A missing or unreadable directory has none.
func ContextNames() []string {
	home, err := configHome()
	if err != nil {
		return nil
	}
	files, err := os.ReadDir(filepath.Join(home, "nats", "context"))
	if err != nil {
		return nil
	}
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".json"); ok && !f.IsDir() {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// selectedContext is the name in context.txt, "" if none is selected.
func selectedContext(home string) (string, error) {
	data, err := os.ReadFile(filepath.Join(home, "nats", "context.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the selected context: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// loadContext reads a context: by name, from a .json file, or the selected one when name is empty. It
// returns the name it found, "" when there is no context to read, which is not an error.
func loadContext(name string) (Settings, string, error) {
	var s Settings
	if strings.HasSuffix(name, ".json") {
		if _, err := os.Stat(name); err == nil {
			base := strings.TrimSuffix(filepath.Base(name), ".json")
			return s, base, readContext(&s, name)
		}
	}
	home, err := configHome()
	if err != nil {
		return s, "", err
	}
	which := "context"
	if name == "" {
		which = "the selected context"
		if name, err = selectedContext(home); err != nil || name == "" {
			return s, "", err
		}
	}
	if strings.ContainsAny(name, `/\`) || strings.Contains(name, "..") {
		return s, "", Usagef("invalid context name %q", name)
	}
	err = readContext(&s, filepath.Join(home, "nats", "context", name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, "", unknownContext(which, name)
	}
	return s, name, err
}

func unknownContext(which, name string) error {
	hint := "there are no contexts; name a server with --server URL"
	if names := ContextNames(); len(names) > 0 {
		hint = "known contexts: " + strings.Join(names, ", ")
	}
	err := Usagef("%s %q does not exist", which, name)
	err.Hints = append(err.Hints, hint, "ignore contexts: --no-context")
	return err
}

func readContext(s *Settings, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read context: %w", err)
	}
	if err := json.Unmarshal(data, s); err != nil {
		return fmt.Errorf("cannot read context %s: %w", path, err)
	}
	for _, p := range []*string{&s.Creds, &s.NKey, &s.Cert, &s.Key, &s.CA} {
		*p = expandPath(*p)
	}
	return nil
}

// expandPath replaces environment variables and a leading ~.
func expandPath(path string) string {
	path = os.ExpandEnv(path)
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return home + path[1:]
}
