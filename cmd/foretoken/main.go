// Command foretoken tunes prompts for frozen ONNX encoders and serves them over HTTP.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/internal/errs"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "foretoken:", err)
		os.Exit(exitCode(err))
	}
}

// exitCode is 1 for a usage error, else the error kind's own code.
func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return 1
	}
	return errs.Of(err).ExitCode()
}

// usageError marks a command line that cobra did not understand.
type usageError struct{ error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "foretoken",
		Short:         "Tune prompts for frozen ONNX vision and text encoders, and serve them",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().Bool("json", false, "print JSON")
	root.AddCommand(newServe(), newWorker(), newStorage(), newModel(), newDataset(), newTune(), newRun(), newEval(),
		newClassify(), newSearch(), newCaption(), newGenerate(), newPrompt(), newRecipe(), newKey(), newDemo())
	return root
}
