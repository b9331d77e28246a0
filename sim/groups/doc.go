// Package groups simulates one Raft group of several replicas, from a seed: the real replica.Shard, the
// real log on disks that lose what was not synced, and a network that loses, repeats, delays and
// reorders. One thread does everything, so one seed gives one run.
//
//	go test ./sim/groups -run TestSimSeeds -seed 42            # one run
//	go test ./sim/groups -run TestSimSeeds -seeds 1000         # that many, from the first one on
//	go test ./sim/groups -run TestSimSuspects -seeds 1000      # the same with disks that are damaged
//	go test ./sim/groups -run TestSimLostStates -seeds 1000    # the same with states that are lost, and not their logs
//	go test ./sim/groups -run TestSimReform -seeds 1000        # the same with half of the logs lost for good
//
// A run that fails prints its seed; seeds.txt keeps those that ever failed, and they run first.
package groups
