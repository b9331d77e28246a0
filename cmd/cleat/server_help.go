package main

import (
	"crypto/tls"
	"fmt"
	"strings"
)

// usageText lists the options of a server. Names are nats-server's.
func usageText(exe string) string {
	text := usage
	if exe == serverName {
		text = asNATS.Replace(text)
	} else {
		exe = "cleat server"
	}
	return strings.ReplaceAll(text, "EXE", exe)
}

// asNATS takes the defaults away that this name does not have.
var asNATS = strings.NewReplacer(`; without a
                                     configuration file and without authentication: 127.0.0.1)`, ")",
	" (default without a configuration file: 8222)", "", " (default without a configuration file)", "")

const usage = `
Usage: EXE [options]

Server:
    -a, --addr, --net <host>         Listen for clients on this address (default: 0.0.0.0; without a
                                     configuration file and without authentication: 127.0.0.1)
    -p, --port <port>                Listen for clients on this port (default: 4222; -1: any free one)
    -n, --name, --server_name <name> Name of this server
    -P, --pid <file>                 Write the process id to this file
    -m, --http_port <port>           Monitoring over HTTP (default without a configuration file: 8222)
    -ms, --https_port <port>         Monitoring over HTTPS
    -c, --config <file>              Configuration file
    -t                               Check the configuration and exit
    -sl, --signal <signal>[=<pid>]   Send a signal to a running server: ldm, stop, quit, term, reopen, reload.
                                     <pid> is a process id, a pid file, or the beginning of an id and a star
        --client_advertise <string>  Address to tell clients in place of the one listened on
        --ports_file_dir <dir>       Write the ports in use to a file in this directory
        --strict-config              Refuse what would be accepted and ignored
        --profile <port>             Go profiles over HTTP

Storage:
    -js, --jetstream                 Enable JetStream (default without a configuration file)
    -sd, --store_dir <dir>           Keep data here (default: cleat-data)
        --kv_storage <engine>        Engine of file storage: file (default) or rocksdb
        --stale_reads                Answer reads on any replica at once; they may be stale

Log:
    -l, --log <file>                 Log to this file
    -T, --logtime                    Write the time (default: true)
        --logtime_utc                Write the time in UTC
    -s, --syslog                     Log to the system log
    -r, --remote_syslog <addr>       Log to a remote system log (udp://localhost:514)
    -D, --debug                      Log more
    -V, --trace                      Log the protocol
    -VV                              Log the protocol, of the system account too
    -DV, -DVV                        Both
        --log_size_limit <bytes>     Begin a new file when this one is full
        --max_traced_msg_len <bytes> Cut messages in the log
        --log_format <format>        nats (default) or json

Authentication:
        --user <user>                User clients must be
        --pass <password>            Password of that user
        --auth <token>               Token clients must have

TLS:
        --tls                        Use TLS, do not ask clients for certificates
        --tlscert <file>             Certificate of the server
        --tlskey <file>              Its key
        --tlsverify                  Use TLS, ask clients for certificates
        --tlscacert <file>           Who signed the certificates of clients

Cluster:
        --routes <url>[,<url>...]    Servers to connect to
        --cluster <url>              Listen for other servers here; --cluster_listen is the same
        --cluster_name <name>        Name of the cluster
        --no_advertise               Do not tell clients about other servers
        --cluster_advertise <string> Address to tell other servers
        --replace_after <time>       Make the replicas of a lost server anew after that (default: 10m; 0: never)
        --transfer_rate <size>       Bytes a second of replicas' states sent and received at most (default: 50M; 0: no bound)
        --connect_retries <number>   How often to try servers that others told of

Help:
    -h, --help                       Show this
    -v, --version                    Show the version
        --help_tls                   Show how TLS is configured
`

// tlsUsageText tells of the tls block and what it can choose from.
func tlsUsageText() string {
	var b strings.Builder
	b.WriteString(`
A tls block in the configuration file:

    tls {
      cert_file: "./server.pem"
      key_file:  "./server-key.pem"
      ca_file:   "./ca.pem"      # who signed the certificates of clients
      verify:    true            # clients must have one
      timeout:   2
      min_version: "1.3"
      cipher_suites: [ "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" ]
      curve_preferences: [ "X25519" ]
    }

Cipher suites for TLS 1.2 (those of TLS 1.3 can not be chosen):
`)
	for _, s := range tls.CipherSuites() {
		if s.SupportedVersions[0] <= tls.VersionTLS12 {
			fmt.Fprintf(&b, "    %s\n", s.Name)
		}
	}
	b.WriteString("\nCurve preferences:\n")
	for _, name := range curveNames {
		fmt.Fprintf(&b, "    %s\n", name)
	}
	return b.String()
}

// curveNames are the names a tls block may prefer, strongest first.
var curveNames = []string{
	"SecP384r1MLKEM1024", "SecP256r1MLKEM768", "X25519MLKEM768", "X25519", "CurveP256", "CurveP384", "CurveP521",
}
