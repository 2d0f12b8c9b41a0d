package xds

import (
	"errors"
	"io"

	load "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
)

// silent accepts load report streams and asks for nothing, so that an Envoy whose
// bootstrap has load reports, which only a restart could add later, does not
// retry and warn every 5 s. It holds its stream until the proxy or the server
// leaves.
type silent struct {
	load.UnimplementedLoadReportingServiceServer
}

func (silent) StreamLoadStats(s load.LoadReportingService_StreamLoadStatsServer) error {
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
