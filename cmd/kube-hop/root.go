package main

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/kube-hop/kube-hop/config"
)

// version is set by the build (-ldflags -X main.version=...).
var version = "dev"

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "kube-hop",
		Short:         "Service proxy for Kubernetes nodes, on IPVS",
		Long:          "kube-hop watches Services and EndpointSlices and programs IPVS virtual servers, ipsets and iptables rules\non this node, so that traffic to a ClusterIP, NodePort, external IP or LoadBalancer IP reaches a ready Pod.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	for _, name := range []string{"v", "vmodule"} {
		root.PersistentFlags().AddGoFlag(logging.Lookup(name))
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })

	run := newRun()
	root.AddCommand(run, newRender(), newCleanup(), newVersion())
	// Without a command the daemon runs, as kube-proxy's image does.
	root.Flags().AddFlagSet(run.Flags())
	root.Args, root.RunE = noArguments, run.RunE
	return root
}

// noArguments rejects positional arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%q is neither a command nor a flag; see %s --help", args[0], cmd.CommandPath())}
	}
	return nil
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			revision := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "kube-hop %s, commit %s, %s\n", version, revision, runtime.Version())
			return err
		},
	}
}

// wrong marks configuration errors as wrong usage.
func wrong(c config.Config, err error) (config.Config, error) {
	if err != nil {
		return c, usageError{errors.Join(err)}
	}
	return c, nil
}
