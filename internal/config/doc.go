// Package config turns a configuration file, the environment and a command line into one typed,
// checked Config.
//
// It owns the meaning of every field of the NATS configuration format, nats-server's flags, and the
// kv block, which is ours alone. The syntax of the format (lexing, variables, includes, sizes) is
// that of github.com/nats-io/nats-server/v2/conf, the one package of that module used outside of
// tests; nothing else here depends on it.
//
// It promises that a file nats-server accepts is accepted, and means the same, or that the difference
// is said: a field without effect in this server is listed in Config.Warnings, a field whose absence
// would weaken security or durability is an error. Unknown names are errors with their place in the
// file. All errors of a file are reported together, in nats-server's words where it has some;
// testdata/load holds both side by side.
//
// It leaves to others to act: it opens no socket and, but for checking that certificates can be
// read, no file other than the configuration.
package config
