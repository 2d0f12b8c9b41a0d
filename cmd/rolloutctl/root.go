package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/internal/nearest"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/internal/secret"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
)

const (
	exitDone = iota
	exitFailed
	exitUsage
	exitNoServer
)

const defaultServer = "http://127.0.0.1:18001"

// usageError is a mistake in the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// cli is what the verbs share: the global flags and where output goes.
type cli struct {
	out, err  io.Writer
	terminal  io.Writer // what out was before it was made ASCII
	plain     bool      // ASCII only
	server    string
	tokenFile string
	output    string
	service   string
	message   string
}

// run is the whole program: it prints at most one sentence about an error and
// returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &cli{out: stdout, err: stderr, terminal: stdout, plain: plainLocale()}
	if c.plain {
		stderr = asciiWriter{stderr}
		c.err = stderr
	}
	running := false // everything that goes wrong before is wrong usage
	root := &cobra.Command{
		Use:   "rolloutctl",
		Short: "Move live connections from one release to the next, in small, even steps",
		Long: `rolloutctl shows what rolloutd does and tells it what to do.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 no server.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          verbsOnly,
		RunE:          func(cmd *cobra.Command, args []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(formats, c.output) {
				return fmt.Errorf("-o is %q; use text or json%s", c.output, nearest.Ask(c.output, formats))
			}
			if c.plain && !c.json() {
				c.out = asciiWriter{stdout}
			}
			running = true
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.server, "server", env("SLUICE_SERVER", defaultServer), "`URL` of rolloutd's API (environment: SLUICE_SERVER)")
	flags.StringVar(&c.tokenFile, "token-file", env("SLUICE_TOKEN_FILE", ""), "`FILE` that holds the API's token (environment: SLUICE_TOKEN_FILE)")
	flags.StringVarP(&c.output, "output", "o", "text", "`FORMAT` of the output: text or json")
	flags.StringVar(&c.service, "service", "", "`NAME` of the service; may be left out when there is one")
	root.AddCommand(c.status(), c.check(), c.plan(), c.promote(), c.retry(), c.watch(), c.pause(), c.resume(), c.abort(), c.pace(), c.adopt(), c.certs(),
		c.history(), c.proxies(), c.instances(), c.bootstrap(), c.validate(), c.initial(), c.schema(), c.conform(), c.version(), c.man())
	root.SetFlagErrorFunc(flagError)
	_ = root.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return formats, cobra.ShellCompDirectiveNoFileComp
	})
	_ = root.RegisterFlagCompletionFunc("service", func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return c.words(c.knownServices)(cmd, nil, "")
	})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	_, wrong := errors.AsType[*usageError](err)
	if r, ok := errors.AsType[*rollout.Refusal](err); ok {
		wrong = wrong || r.Code == rollout.BadRequest
	}
	switch {
	case wrong || !running:
		_, _ = fmt.Fprintf(stderr, "rolloutctl: %v (see %s --help)\n", err, cmd.CommandPath())
		return exitUsage
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		err = errors.New("interrupted before there was an answer; rolloutctl status shows what holds")
	}
	_, _ = fmt.Fprintf(stderr, "rolloutctl: %v\n", err)
	if errors.Is(err, api.ErrNoServer) {
		return exitNoServer
	}
	return exitFailed
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

var formats = []cobra.Completion{"text", "json"}

func (c *cli) json() bool { return c.output == "json" }

func (c *cli) client() (*api.Client, error) {
	token := ""
	if c.tokenFile != "" {
		var err error
		if token, err = secret.File(c.tokenFile); err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
	}
	client, err := api.NewClient(c.server, token)
	if err != nil {
		return nil, &usageError{err.Error()}
	}
	return client.Saying(state.Message(c.message)), nil
}

// addMessage gives a command the words for the rollout's history.
func (c *cli) addMessage(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.message, "message", "m", "", "one line of `TEXT` for the history, such as who and which ticket")
}

// dial returns the client and the service that is meant: the named one, or the
// only one there is.
func (c *cli) dial(ctx context.Context) (*api.Client, discovery.Service, error) {
	client, err := c.client()
	if err != nil || c.service != "" {
		return client, discovery.Service(c.service), err
	}
	world, err := client.Status(ctx)
	if err != nil {
		return nil, "", err
	}
	names := make([]string, len(world.Services))
	for i, s := range world.Services {
		names[i] = string(s.Service)
	}
	switch len(names) {
	case 0:
		return nil, "", errors.New(noService)
	case 1:
		return client, world.Services[0].Service, nil
	}
	return nil, "", usagef("there are %d services (%s); name one with --service", len(names), strings.Join(names, ", "))
}

// named takes the service from the argument, where a verb has one.
func (c *cli) named(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.service != "" && c.service != args[0] {
		return usagef("--service says %s and the argument %s; name one service", c.service, args[0])
	}
	c.service = args[0]
	return nil
}

// command is a verb that tells rolloutd something and prints its answer.
func (c *cli) command(cmd *cobra.Command, do func(context.Context, *api.Client, discovery.Service) (rollout.Answer, error)) error {
	client, service, err := c.dial(cmd.Context())
	if err != nil {
		return err
	}
	answer, err := do(cmd.Context(), client, service)
	if err != nil {
		return err
	}
	return c.answer(answer)
}

func (c *cli) answer(a rollout.Answer) error {
	if c.json() {
		return c.printJSON(a)
	}
	return c.printf("%s\n", a.Text)
}
