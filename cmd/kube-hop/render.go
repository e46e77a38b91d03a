package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-hop/kube-hop/config"
	"github.com/kube-hop/kube-hop/informers"
	"github.com/kube-hop/kube-hop/lb"
	"github.com/kube-hop/kube-hop/proxier"
	"github.com/kube-hop/kube-hop/proxier/render"
)

func newRender() *cobra.Command {
	var flags config.Flags
	var output string
	var rules bool
	cmd := &cobra.Command{
		Use:   "render --from DIR --node NAME",
		Short: "Print the kernel state that would be programmed, without touching a kernel",
		Long: "render reads Services, EndpointSlices, Nodes and ServiceCIDRs from a folder of YAML files and prints what the\n" +
			"daemon would program on the named node. It needs no privileges.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := wrong(flags.Config())
			if err != nil {
				return err
			}
			if c.From == "" || output != "text" && output != "json" {
				return usageError{fmt.Errorf("--from must name a folder, and --output (%q) must be text or json", output)}
			}
			return renderFolder(cmd.Context(), c, renderOutput{cmd.OutOrStdout(), cmd.ErrOrStderr(), output == "json", rules})
		},
	}
	flags.AddSource(cmd.Flags())
	flags.AddRender(cmd.Flags())
	cmd.Flags().StringVar(&flags.Hostname, "node", "", "name of the Node to render for; short for --hostname-override")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&rules, "rules", false, "print the iptables and nf_tables rules too (text only); they do not depend on Services")
	return cmd
}

// renderOutput says where and how to print.
type renderOutput struct {
	out, problems io.Writer
	json, rules   bool
}

func renderFolder(ctx context.Context, c config.Config, o renderOutput) error {
	snapshot, fileProblems, err := informers.LoadFolder(c.From, c.Proxier.NodeName)
	if err != nil {
		return err
	}
	tracker := proxier.NewTracker(time.Now)
	snapshot.Feed(tracker)
	state, node := proxier.Render(ctx, tracker, c.Proxier)
	facts := render.Facts{Node: node, ServiceCIDRs: snapshot.ServiceCIDRs}
	if err := o.print(state, facts, c); err != nil {
		return err
	}
	for _, p := range fileProblems {
		fmt.Fprintln(o.problems, p)
	}
	for _, p := range snapshot.Problems {
		fmt.Fprintln(o.problems, p)
	}
	if len(fileProblems) > 0 {
		return errors.New("some files could not be read completely; what they should say is missing above")
	}
	return nil
}

func (o renderOutput) print(state render.State, facts render.Facts, c config.Config) error {
	if o.json {
		e := json.NewEncoder(o.out)
		e.SetIndent("", "  ")
		return e.Encode(state)
	}
	if _, err := io.WriteString(o.out, state.Text()); err != nil {
		return err
	}
	if !o.rules {
		return nil
	}
	for _, f := range []lb.Family{lb.IPv4, lb.IPv6} {
		rules := render.Skeleton(f, facts.Node, c.Render())
		fmt.Fprintf(o.out, "# %s\n", f)
		for _, table := range rules.Tables() {
			if _, err := io.WriteString(o.out, rules.RestoreText(table)); err != nil {
				return err
			}
		}
	}
	for _, t := range render.Tables(facts, c.Render(), state.Uses()) {
		if _, err := io.WriteString(o.out, t.String()); err != nil {
			return err
		}
	}
	return nil
}
