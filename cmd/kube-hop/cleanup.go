package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-hop/kube-hop/config"
	"github.com/kube-hop/kube-hop/ipvs/ipvsnl"
	"github.com/kube-hop/kube-hop/metrics"
	"github.com/kube-hop/kube-hop/proxier"
)

func newCleanup() *cobra.Command {
	var flags config.Flags
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything that kube-hop programmed on this node, and nothing else",
		Long: "cleanup removes kube-hop's virtual servers, local routes, device, iptables chains and ipsets. Stop the daemon\n" +
			"first, or it programs everything again. Virtual servers, chains and sets of others are not touched.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := wrong(flags.RunConfig())
			if err != nil {
				return err
			}
			return cleanup(cmd.Context(), c)
		},
	}
	flags.Add(cmd.Flags())
	return cmd
}

func cleanup(ctx context.Context, c config.Config) error {
	k, err := openKernel(ctx, &c.Proxier.Render)
	if errors.Is(err, ipvsnl.ErrNoIPVS) {
		return err
	}
	if err != nil {
		return err
	}
	defer k.close()
	p := proxier.New(c.Proxier, k.Dataplane, metrics.New(), time.Now)
	return errors.Join(p.Cleanup(ctx), k.table.DeleteDevice(ctx))
}
