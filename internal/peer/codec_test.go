package peer

import (
	"bufio"
	"bytes"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func samples() []*pb.Message {
	return []*pb.Message{
		{Type: pb.MsgHeartbeat.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(9)), Commit: new(uint64(77)), Context: []byte("ctx")},
		{Type: pb.MsgAppResp.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(9)), Index: new(uint64(5)), Reject: new(true), RejectHint: new(uint64(3)), LogTerm: new(uint64(1))},
		{Type: pb.MsgApp.Enum(), To: new(uint64(1 << 60)), From: new(uint64(1)), Term: new(uint64(9)), Index: new(uint64(5)), Entries: []*pb.Entry{
			{Term: new(uint64(9)), Index: new(uint64(6)), Type: pb.EntryNormal.Enum(), Data: []byte("payload")},
			{Term: new(uint64(9)), Index: new(uint64(7)), Type: pb.EntryConfChangeV2.Enum(), Data: []byte{}},
		}},
		{Type: pb.MsgSnap.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(9)), Snapshot: &pb.Snapshot{Data: []byte("token"), Metadata: &pb.SnapshotMetadata{
			Index: new(uint64(4)), Term: new(uint64(2)), ConfState: &pb.ConfState{Voters: []uint64{1, 2, 3}}}}},
	}
}

func TestMessageRoundTrip(t *testing.T) {
	var b []byte
	for i, m := range samples() {
		b = AppendMessage(b, uint64(i), m)
	}
	for i, want := range samples() {
		group, got, rest, err := DecodeMessage(b)
		if err != nil || group != uint64(i) {
			t.Fatalf("message %d: group %d, %v", i, group, err)
		}
		again := AppendMessage(nil, group, got)
		if !bytes.Equal(again, AppendMessage(nil, group, want)) || got.GetType() != want.GetType() || len(got.GetEntries()) != len(want.GetEntries()) {
			t.Fatalf("message %d: got %v, want %v", i, got, want)
		}
		b = rest
	}
}

// There are more heartbeats and answers to them than anything else between servers with many groups.
func TestHeartbeatIsShort(t *testing.T) {
	m := &pb.Message{Type: pb.MsgHeartbeat.Enum(), To: new(uint64(3_000_002)), From: new(uint64(3_000_001)), Term: new(uint64(1000)), Commit: new(uint64(1) << 40)}
	if n := len(AppendMessage(nil, 1_000_000, m)); n > 24 {
		t.Errorf("a heartbeat takes %d bytes", n)
	}
}

func TestFrameChecksum(t *testing.T) {
	frame := appendFrame(nil, 3, func(b []byte) []byte { return append(b, "some payload"...) })
	if k, p, err := readFrame(bufio.NewReader(bytes.NewReader(frame))); err != nil || k != 3 || string(p) != "some payload" {
		t.Fatal(k, string(p), err)
	}
	for i := range frame {
		for bit := range 8 {
			bad := bytes.Clone(frame)
			bad[i] ^= 1 << bit
			if _, p, err := readFrame(bufio.NewReader(bytes.NewReader(bad))); err == nil {
				t.Fatalf("bit %d of byte %d flipped and nobody noticed: %q", bit, i, p)
			}
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 1, func(b []byte) []byte { return append(b, "x"...) }))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			kind, p, err := readFrame(r)
			if err != nil {
				return
			}
			if k2, p2, err := readFrame(bufio.NewReader(bytes.NewReader(appendFrame(nil, kind, func(b []byte) []byte { return append(b, p...) })))); err != nil || k2 != kind || !bytes.Equal(p, p2) {
				t.Fatal("a frame does not survive a round trip")
			}
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range samples() {
		f.Add(AppendMessage(nil, 7, m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		group, m, _, err := DecodeMessage(data)
		if err != nil {
			return
		}
		g2, m2, rest, err := DecodeMessage(AppendMessage(nil, group, m))
		if err != nil || g2 != group || len(rest) != 0 || !bytes.Equal(AppendMessage(nil, group, m), AppendMessage(nil, group, m2)) {
			t.Fatal("a message does not survive a round trip")
		}
	})
}

func BenchmarkMessageCodec(b *testing.B) {
	m := samples()[2]
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = AppendMessage(buf[:0], 7, m)
			if _, _, _, err := DecodeMessage(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf, _ = proto.MarshalOptions{}.MarshalAppend(buf[:0], m)
			if err := proto.Unmarshal(buf, &pb.Message{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
