package wal

type footer struct{}

func decodeFooter(b []byte) (*footer, error) { return &footer{}, nil }
