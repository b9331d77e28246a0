package storage

// Scanner is a Reader that passes over many messages for much less than as many calls of NextSeq and
// Load cost. Engines whose messages lie on disk implement it.
type Scanner interface {
	// Scan calls fn for the messages at or above from that match a filter, in order of sequence,
	// until fn returns false. The message is fn's until it returns; its slices are the caller's
	// to read for as long as it likes. It reads ahead a little: about as much as a caller that
	// stops after want messages will look at.
	Scan(filters []string, from uint64, want int, fn func(m *Message) bool) error
}

// InPlacer is an Engine that can make a change in place of the state before it, instead of beside it.
type InPlacer interface {
	// BeginInPlace is Begin for a change that will be committed. Until then reads of the Engine may
	// wait: the owner must not read it, nor wait for who does. If the Tx is discarded all the same,
	// Err says that the engine can no longer be trusted.
	BeginInPlace() Tx
}

// Squeezer is an Engine that holds on to the space of removed messages for as long as it likes, and can be
// told to give it back because the disk is full.
type Squeezer interface {
	// Squeeze gives back what is worth it. The caller is background work, as for Compact.
	Squeeze() error
}

// Scrubber is an Engine that can look for damage before anybody reads what is damaged.
type Scrubber interface {
	// Scrub reads about limit bytes of what lies on disk, going on where the last call ended, and
	// checks them. It returns how many it read, and whether it came to the end, after which it
	// begins anew. Damage is kept in Err, as that which a read meets. The caller is background
	// work, as for Compact.
	Scrub(limit int64) (read int64, done bool, err error)
}
