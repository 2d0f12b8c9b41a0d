package consul

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

const (
	// mostPlain is up to where a value is stored as it is, readable by
	// `consul kv get`. Larger ones are gzipped: a fleet of thousands would not fit.
	mostPlain = 64 << 10
	// mostStored: Consul takes request bodies of 512 KiB, in which the value
	// stands in base64 (4/3 of it) among some hundred bytes.
	mostStored = 380 << 10
	// mostUnpacked bounds what a damaged value can grow to.
	mostUnpacked = 64 << 20
)

var gzipMagic = []byte{0x1f, 0x8b}

func pack(data []byte) ([]byte, error) {
	if len(data) <= mostPlain {
		return data, nil
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	if b.Len() > mostStored {
		return nil, fmt.Errorf("the state has %d bytes even when compressed, and Consul takes %d; keep the state in a file, or split the service", b.Len(), mostStored)
	}
	return b.Bytes(), nil
}

func unpack(value []byte) ([]byte, error) {
	if !bytes.HasPrefix(value, gzipMagic) {
		return value, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(value))
	if err != nil {
		return nil, fmt.Errorf("no gzip: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(r, mostUnpacked+1))
	if err != nil {
		return nil, fmt.Errorf("no gzip: %w", err)
	}
	if len(data) > mostUnpacked {
		return nil, fmt.Errorf("it unpacks to more than %d bytes", mostUnpacked)
	}
	return data, nil
}
