package config

import "runtime/debug"

// The one place for version numbers.
const (
	// Version is the version of this product.
	Version = "0.1.0"

	// ProtocolVersion is the version told to NATS clients, in INFO and in /varz. Clients decide by it
	// which features to use, so it names the newest nats-server release whose client visible
	// features are all here.
	ProtocolVersion = "2.11.0"

	// APILevel is the JetStream API level told to clients; it belongs to ProtocolVersion.
	APILevel = 1

	// Proto is the number of the client protocol: 1 means that INFO may be sent at any time.
	Proto = 1
)

// GitCommit is the short hash of the commit this binary was built from, or "" when the build
// recorded none.
func GitCommit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 {
			return s.Value[:7]
		}
	}
	return ""
}
