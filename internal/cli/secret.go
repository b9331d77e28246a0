package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// A context file may hold a reference in place of a secret:
//
//	file:///path   the contents of a file
//	env://NAME     the value of an environment variable
//	data:;base64,  the secret itself
//	op://...       what 1Password's tool prints for it (op read)
//	nsc://...      the credentials file nsc knows for an operator, account and user

// splitScheme takes "scheme:rest" apart; known schemes only, so that a password with a colon or a
// Windows path is left alone.
func splitScheme(ref string) (scheme, rest string) {
	for _, s := range []string{"file://", "env://", "op://", "nsc://", "data:"} {
		if len(ref) >= len(s) && strings.EqualFold(ref[:len(s)], s) {
			return strings.TrimRight(s, ":/"), ref[len(s):]
		}
	}
	return "", ref
}

// literal is the text a reference stands for; anything that is not a reference stands for itself.
func literal(ref string) (string, error) {
	if scheme, _ := splitScheme(ref); scheme == "" {
		return ref, nil
	}
	data, err := secret(ref)
	return strings.TrimRight(string(data), "\r\n"), err
}

// secret is the bytes a reference stands for; a bare path stands for the file.
func secret(ref string) ([]byte, error) {
	scheme, rest := splitScheme(ref)
	switch scheme {
	case "env":
		if v := os.Getenv(rest); v != "" {
			return []byte(v), nil
		}
		return nil, fmt.Errorf("environment variable %q is not set", rest)
	case "data":
		header, payload, ok := strings.Cut(rest, ",")
		if !ok || !strings.HasSuffix(strings.ToLower(header), ";base64") {
			return nil, errors.New(`a data: reference must read "data:;base64,..."`)
		}
		return base64.StdEncoding.DecodeString(payload)
	case "op":
		return output("op", "read", "op://"+rest)
	case "nsc":
		p, err := nscProfile(rest)
		if err != nil {
			return nil, err
		}
		return os.ReadFile(p.UserCreds)
	default:
		return os.ReadFile(expandPath(rest))
	}
}

// profile is the part of `nsc generate profile` that says where and as whom to connect.
type profile struct {
	UserCreds string `json:"user_creds"`
	Operator  struct {
		Service []string `json:"service"`
	} `json:"operator"`
}

func nscProfile(ref string) (profile, error) {
	var p profile
	_, rest := splitScheme(ref)
	data, err := output("nsc", "generate", "profile", "nsc://"+rest)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("nsc generate profile: %w", err)
	}
	if p.UserCreds == "" {
		return p, errors.New("nsc generate profile: no user_creds in its answer")
	}
	return p, nil
}

// output runs a secret manager's tool. What it prints is secret, so an error shows stderr only.
func output(name string, args ...string) ([]byte, error) {
	out, err := exec.Command(name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return nil, fmt.Errorf("%s %s: %w: %s", name, args[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}
