package storage

// Inspection is what the files of an engine say that no server has open.
type Inspection struct {
	Name    string
	Dropped bool
	Applied Applied
	State   State
	Files   []InspectedFile
	Left    []string        // files of no meaning any more, which the next start removes
	Damage  []*CorruptError // in the order of the files
	Lost    []LostMessage   // as far as it can be told what was in the damaged places

	Rebuilt *Rebuilt // set if what says which messages are there is damaged, and could be told from the messages

	Aux map[string][]byte // the auxiliary records that were asked for and can be read
}

// InspectedFile is one file of an engine.
type InspectedFile struct {
	Name  string
	Bytes int64

	// Of files with messages.
	LiveBytes   int64
	Records     int
	LiveRecords int
	Erased      int
}

// LostMessage is a message that is there by right and can not be read.
type LostMessage struct {
	Seq     uint64
	Subject string
}

// Rebuilt says how well an index could be made out of the messages.
type Rebuilt struct {
	Exact   bool   // it is for certain the one that is damaged
	Want    uint64 // so many messages there were
	Records bool   // no auxiliary record can have been in the damaged place
}
