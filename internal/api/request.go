package api

import "time"

// typePrefix begins the type of every reply.
const typePrefix = "io.nats.jetstream.api.v1."

// Header begins every reply: its type, and the error if it is one.
type Header struct {
	Type  string `json:"type"`
	Error *Error `json:"error,omitempty"`
}

// ReplyHeader makes the header of a reply of the kind, such as "stream_info_response".
func ReplyHeader(kind string) Header { return Header{Type: typePrefix + kind} }

// Page is the paging part of list replies, always emitted.
type Page struct {
	Total  int `json:"total"`
	Offset int `json:"offset"`
	Limit  int `json:"limit"`
}

// Page sizes.
const (
	NamesPage   = 1024
	ListPage    = 256
	SubjectPage = 100_000
)

// Slice clamps the offset to the total and returns the bounds of the page.
func (p *Page) Slice() (from, to int) {
	p.Offset = min(max(p.Offset, 0), p.Total)
	return p.Offset, min(p.Offset+p.Limit, p.Total)
}

// AccountInfoResponse answers INFO.
type AccountInfoResponse struct {
	Header
	AccountTier
	Domain string                 `json:"domain,omitempty"`
	API    APIStats               `json:"api"`
	Tiers  map[string]AccountTier `json:"tiers,omitempty"`
}

// AccountTier is what an account uses, and may use.
type AccountTier struct {
	Memory          uint64        `json:"memory"`
	Storage         uint64        `json:"storage"`
	ReservedMemory  uint64        `json:"reserved_memory"`
	ReservedStorage uint64        `json:"reserved_storage"`
	Streams         int           `json:"streams"`
	Consumers       int           `json:"consumers"`
	Limits          AccountLimits `json:"limits"`
}

// AccountLimits are the JetStream limits of an account; -1 is none.
type AccountLimits struct {
	MaxMemory            int64 `json:"max_memory"`
	MaxStorage           int64 `json:"max_storage"`
	MaxStreams           int   `json:"max_streams"`
	MaxConsumers         int   `json:"max_consumers"`
	MaxAckPending        int   `json:"max_ack_pending"`
	MemoryMaxStreamBytes int64 `json:"memory_max_stream_bytes"`
	StoreMaxStreamBytes  int64 `json:"storage_max_stream_bytes"`
	MaxBytesRequired     bool  `json:"max_bytes_required"`
}

// Unlimited are the limits of an account that has none.
var Unlimited = AccountLimits{
	MaxMemory: -1, MaxStorage: -1, MaxStreams: -1, MaxConsumers: -1,
	MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
}

// APIStats counts API calls.
type APIStats struct {
	Level    int    `json:"level"`
	Total    uint64 `json:"total"`
	Errors   uint64 `json:"errors"`
	Inflight uint64 `json:"inflight,omitempty"`
}

// StreamConfigRequest is the body of STREAM.CREATE and STREAM.UPDATE.
type StreamConfigRequest struct {
	StreamConfig
	Pedantic bool `json:"pedantic,omitempty"`
}

// StreamCreateResponse answers STREAM.CREATE and, without DidCreate, STREAM.UPDATE.
type StreamCreateResponse struct {
	Header
	*StreamInfo
	DidCreate bool `json:"did_create,omitempty"`
}

// StreamInfoRequest is the body of STREAM.INFO.
type StreamInfoRequest struct {
	Offset         int    `json:"offset"`
	DeletedDetails bool   `json:"deleted_details,omitempty"`
	SubjectsFilter string `json:"subjects_filter,omitempty"`
}

// StreamInfoResponse answers STREAM.INFO.
type StreamInfoResponse struct {
	Header
	Page
	*StreamInfo
}

// SuccessResponse answers the calls that only succeed or fail.
type SuccessResponse struct {
	Header
	Success bool `json:"success,omitempty"`
}

// StreamPurgeRequest is the body of STREAM.PURGE.
type StreamPurgeRequest struct {
	Seq    uint64 `json:"seq,omitempty"`
	Filter string `json:"filter,omitempty"`
	Keep   uint64 `json:"keep,omitempty"`
}

// StreamPurgeResponse answers STREAM.PURGE.
type StreamPurgeResponse struct {
	Header
	Success bool   `json:"success,omitempty"`
	Purged  uint64 `json:"purged"`
}

// StreamListRequest is the body of STREAM.NAMES and STREAM.LIST.
type StreamListRequest struct {
	Offset  int    `json:"offset"`
	Subject string `json:"subject,omitempty"`
}

// StreamNamesResponse answers STREAM.NAMES.
type StreamNamesResponse struct {
	Header
	Page
	Streams []string `json:"streams"`
}

// StreamListResponse answers STREAM.LIST.
type StreamListResponse struct {
	Header
	Page
	Streams []*StreamInfo     `json:"streams"`
	Missing []string          `json:"missing,omitempty"`
	Offline map[string]string `json:"offline,omitempty"`
}

// MsgGetRequest is the body of STREAM.MSG.GET and DIRECT.GET.
type MsgGetRequest struct {
	Seq       uint64     `json:"seq,omitempty"`
	LastFor   string     `json:"last_by_subj,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	MaxBytes  int        `json:"max_bytes,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
	MultiLast []string   `json:"multi_last,omitempty"`
	UpToSeq   uint64     `json:"up_to_seq,omitempty"`
	UpToTime  *time.Time `json:"up_to_time,omitempty"`
	NoHeaders bool       `json:"no_hdr,omitempty"`
}

// MsgGetResponse answers STREAM.MSG.GET.
type MsgGetResponse struct {
	Header
	Message *StoredMessage `json:"message,omitempty"`
}

// StoredMessage is a message with its place in the stream.
type StoredMessage struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Header  []byte    `json:"hdrs,omitempty"`
	Data    []byte    `json:"data,omitempty"`
	Time    time.Time `json:"time"`
}

// MsgDeleteRequest is the body of STREAM.MSG.DELETE.
type MsgDeleteRequest struct {
	Seq     uint64 `json:"seq"`
	NoErase bool   `json:"no_erase,omitempty"`
}

// PeerRemoveRequest is the body of STREAM.PEER.REMOVE.
type PeerRemoveRequest struct {
	Peer string `json:"peer"`
}

// ServerRemoveRequest is the body of SERVER.REMOVE. With PeerID the name does not count.
type ServerRemoveRequest struct {
	Peer   string `json:"peer"`
	PeerID string `json:"peer_id,omitempty"`
}

// StepDownRequest is the body of the LEADER.STEPDOWN family.
type StepDownRequest struct {
	Placement *Placement `json:"placement,omitempty"`
}

// StreamSnapshotRequest is the body of STREAM.SNAPSHOT.
type StreamSnapshotRequest struct {
	DeliverSubject string `json:"deliver_subject"`
	NoConsumers    bool   `json:"no_consumers,omitempty"`
	ChunkSize      int    `json:"chunk_size,omitempty"`
	WindowSize     int    `json:"window_size,omitempty"`
	Check          bool   `json:"jsck,omitempty"` // every message is checked in any case
}

// StreamSnapshotResponse answers it; the backup follows.
type StreamSnapshotResponse struct {
	Header
	Config *StreamConfig `json:"config"`
	State  *StreamState  `json:"state"`
}

// StreamRestoreRequest is the body of STREAM.RESTORE: what the stream was when the backup was made.
type StreamRestoreRequest struct {
	Config StreamConfig `json:"config"`
	State  StreamState  `json:"state"`
}

// StreamRestoreResponse says where to send the backup to.
type StreamRestoreResponse struct {
	Header
	DeliverSubject string `json:"deliver_subject"`
}
