// Package faults runs a whole single server, all but its listeners, on a disk that fails and loses
// power, and holds what is left against a model.
//
// One client works through a list of operations that a seed gives: puts, compare-and-sets, deletes,
// purges, acknowledgements of a consumer, buckets of both engines that come and go, checkpoints and
// restarts. The suites then do, for every call to the file system of such a run, what can go wrong
// with it: it fails (fail_test.go), or it is the last one before a power cut (powercut_test.go).
// Each server runs in a bubble of package synctest: hours of waiting take no time, and a request that
// nobody will answer is known as such for certain.
package faults
