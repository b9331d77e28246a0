// Package stream is the deterministic machine of one stream: commands of its Raft log go in, results
// and effects come out, and the messages live in a storage.Engine.
//
// It promises:
//   - every check of a publish is made when it is applied, against the state that all replicas share:
//     a refused one changed nothing, and a lost compare-and-set is told the true last sequence;
//   - time comes with the commands: the leader's stamp. What has expired is removed by a command of
//     its own, so that nothing expired ever comes back and all replicas hold the same messages;
//   - what is needed beside the messages (configuration, deduplication, durable consumers) is kept
//     in the engine's auxiliary records, written with the messages in one change: state after a
//     restart or a snapshot is the state before;
//   - readers on any goroutine see a change whole or not at all; registered observers hear of every
//     message that came or went, in order.
//
// It leaves to others: who proposes commands and when (cluster, jetstream), consensus (replica), how
// messages are stored (storage), what consumers do (consumer), and which streams exist (meta).
package stream
