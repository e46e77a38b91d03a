package proxier_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata/*.txtar")

// TestScripts runs testdata/*.txtar: Kubernetes YAML in, dataplane state out. testdata/README.md lists the commands.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", Cmds: commands, Setup: setup(0), Condition: condition(false),
		UpdateScripts: *update, RequireExplicitExec: true,
	})
}

// TestScriptsWithFailures runs the same scripts while one kernel operation in ten fails. After its retries every
// script must end in the same state.
func TestScriptsWithFailures(t *testing.T) {
	if *update {
		t.Skip("the expected output is that of the run without failures")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata", Cmds: commands, Setup: setup(10), Condition: condition(true), RequireExplicitExec: true,
	})
}

// condition lets scripts leave out what failures change: the order of operations, not the end.
func condition(flaky bool) func(string) (bool, error) {
	return func(name string) (bool, error) {
		if name != "flaky" {
			return false, fmt.Errorf("unknown condition %q", name)
		}
		return flaky, nil
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
