package main

import (
	"bytes"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/envoy/bootstrap"
)

func (c *cli) bootstrap() *cobra.Command {
	var o bootstrap.Options
	admin := "127.0.0.1:9901"
	cmd := &cobra.Command{
		Use:     "bootstrap --node NAME",
		Short:   "Print what an Envoy starts with; asks no server",
		Example: "  rolloutctl bootstrap --node edge-1 --xds rolloutd.internal:18000 > envoy.yaml",
		Args:    noArgs,
	}
	cmd.Flags().StringVar(&o.Node, "node", "", "`NAME` of the Envoy, unique among all that one rolloutd serves")
	cmd.Flags().StringVar(&o.Cluster, "cluster", "edge", "`NAME` of the group the Envoy belongs to")
	cmd.Flags().StringVar(&o.XDS, "xds", "127.0.0.1:18000", "`HOST:PORT` of rolloutd's xds.listen, as the Envoy reaches it")
	cmd.Flags().StringVar(&admin, "admin", admin, "`IP:PORT` of Envoy's admin interface; keep it on loopback")
	cmd.Flags().IntVar(&o.Concurrency, "concurrency", 0, "`NUMBER` of Envoy's worker threads; 0 is one per core")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Node == "" {
			return usagef("--node is missing; give each Envoy a name of its own, such as edge-1")
		}
		var err error
		if o.Admin, err = netip.ParseAddrPort(admin); err != nil {
			return usagef("--admin is %q; write it like 127.0.0.1:9901", admin)
		}
		var file bytes.Buffer
		if err := bootstrap.Write(&file, o); err != nil {
			return &usageError{err.Error()}
		}
		if c.json() {
			return c.printJSON(struct {
				Node      string   `json:"node"`
				Flags     []string `json:"flags"`
				Bootstrap string   `json:"bootstrap"`
			}{o.Node, bootstrap.Flags(), file.String()})
		}
		_, err = c.out.Write(file.Bytes())
		return err
	}
	return cmd
}
