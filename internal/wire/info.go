package wire

import (
	"encoding/json"
	"errors"
)

// Info is the JSON of INFO.
type Info struct {
	ServerID       string   `json:"server_id"`
	ServerName     string   `json:"server_name"`
	Version        string   `json:"version"`
	Proto          int      `json:"proto"`
	GitCommit      string   `json:"git_commit,omitempty"`
	Go             string   `json:"go"`
	Host           string   `json:"host"`
	Port           int      `json:"port"`
	Headers        bool     `json:"headers"`
	AuthRequired   bool     `json:"auth_required,omitempty"`
	TLSRequired    bool     `json:"tls_required,omitempty"`
	TLSVerify      bool     `json:"tls_verify,omitempty"`
	TLSAvailable   bool     `json:"tls_available,omitempty"`
	MaxPayload     int64    `json:"max_payload"`
	JetStream      bool     `json:"jetstream,omitempty"`
	ClientID       uint64   `json:"client_id,omitempty"`
	ClientIP       string   `json:"client_ip,omitempty"`
	Nonce          string   `json:"nonce,omitempty"`
	Cluster        string   `json:"cluster,omitempty"`
	ClusterDynamic bool     `json:"cluster_dynamic,omitempty"`
	Domain         string   `json:"domain,omitempty"`
	ConnectURLs    []string `json:"connect_urls,omitempty"`
	LameDuck       bool     `json:"ldm,omitempty"`
	ConnectInfo    bool     `json:"connect_info,omitempty"`
	RemoteAccount  string   `json:"remote_account,omitempty"`
	SystemAccount  bool     `json:"acc_is_sys,omitempty"`
	APILevel       int      `json:"api_lvl,omitempty"`
}

// AppendInfoLine appends the INFO line that says info.
func AppendInfoLine(dst []byte, info *Info) []byte {
	b, err := json.Marshal(info)
	if err != nil {
		panic(err) // A struct of strings and numbers has always a JSON form.
	}
	return AppendInfo(dst, b)
}

// ConnectOptions is the JSON of CONNECT.
type ConnectOptions struct {
	Verbose      bool   `json:"verbose"`
	Pedantic     bool   `json:"pedantic"`
	TLSRequired  bool   `json:"tls_required"`
	Echo         bool   `json:"echo"`
	Headers      bool   `json:"headers"`
	NoResponders bool   `json:"no_responders"`
	Protocol     int    `json:"protocol"`
	Lang         string `json:"lang"`
	Version      string `json:"version"`
	Name         string `json:"name"`
	User         string `json:"user"`
	Pass         string `json:"pass"`
	Token        string `json:"auth_token"`
	JWT          string `json:"jwt"`
	NKey         string `json:"nkey"`
	Sig          string `json:"sig"`
	Account      string `json:"account"`
	NewAccount   bool   `json:"new_account"`
}

// DefaultConnect is what holds for a client that did not say otherwise.
func DefaultConnect() ConnectOptions {
	return ConnectOptions{Verbose: true, Pedantic: true, Echo: true}
}

// ErrConnect tells that the JSON of a CONNECT could not be read.
var ErrConnect = errors.New("the JSON of CONNECT cannot be read")

// ParseConnect reads the JSON of CONNECT on top of what holds so far: the defaults, or what an
// earlier CONNECT said.
func ParseConnect(b []byte, o ConnectOptions) (ConnectOptions, error) {
	if err := json.Unmarshal(b, &o); err != nil {
		return o, ErrConnect
	}
	return o, nil
}
