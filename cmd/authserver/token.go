package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"authserver/internal/intake"

	"github.com/spf13/cobra"
)

func newTokenCommand() *cobra.Command {
	inspect := &cobra.Command{
		Use:   "inspect TOKEN|-",
		Short: "Show what a token says, without verifying it",
		Long: "Shows the header and the claims of a token. Nothing is verified and nothing is sent\n" +
			"anywhere. Give - and the token on standard input: other users of the machine see arguments.",
		Example: "  echo \"$TOKEN\" | authserver token inspect -",
		Args:    arguments(1),
	}
	inspectOutput := outputFlag(inspect)
	inspect.RunE = func(command *cobra.Command, args []string) error {
		raw, err := tokenArgument(args[0])
		if err != nil {
			return err
		}
		return inspectToken(command.OutOrStdout(), raw, *inspectOutput)
	}

	var from verification
	verify := &cobra.Command{
		Use:   "verify TOKEN|- --audience ID",
		Short: "Verify an access token as a resource server would, check by check",
		Long: "Fetches the issuer's keys and its revocations, verifies an access token and lists each check\n" +
			"with its result. The token is not sent anywhere. On the server's machine, --config or --socket asks\n" +
			"the running server for the state of the token's key, and for when and why it was revoked; --config also\n" +
			"says which issuer. Exits with 1 when a check fails. Checks that lack a flag are listed as not checked.\n" +
			"Give - and the token on standard input: other users of the machine see arguments.",
		Example: "  echo \"$TOKEN\" | authserver token verify - --issuer http://localhost:8080 --audience http://localhost:8081\n" +
			"  echo \"$TOKEN\" | authserver token verify - --config authserver.yaml --audience https://api.example.com",
		Args: arguments(1),
	}
	server := operated(verify)
	verify.Flags().StringVar(&from.issuer, "issuer", "", "the issuer identifier that the token must have")
	verify.Flags().StringVar(&from.audience, "audience", "", "the resource identifier that the token must be meant for")
	verify.Flags().StringVar(&from.jwks, "jwks", "", "URL or file of the key set (found through the issuer's metadata)")
	verify.RunE = func(command *cobra.Command, args []string) error {
		if from.issuer == "" && server.config != "" { // whose server is asked
			config, _, err := loadConfig(server.config, os.Environ())
			if err != nil {
				return err
			}
			from.issuer = config.Issuer
		}
		switch u, err := url.Parse(from.issuer); {
		case from.issuer == "" && from.jwks == "":
			return usageError{withHint(errors.New("--issuer, --jwks or --config is required: a token cannot vouch for itself"),
				`echo "$TOKEN" | authserver token verify - --issuer https://auth.example.com --audience https://api.example.com`)}
		case from.issuer != "" && (err != nil || u.Host == ""):
			return usageError{withHint(fmt.Errorf("--issuer %q is not a URL", from.issuer), "write it as the metadata does, for example https://auth.example.com")}
		}
		raw, err := tokenArgument(args[0])
		if err != nil {
			return err
		}
		if server.socket != "" || server.config != "" {
			from.server = server
		}
		return verifyToken(command.Context(), command.OutOrStdout(), from, raw, *server.output)
	}
	return group("token", "Look into tokens", "  echo \"$TOKEN\" | authserver token inspect -", inspect, verify)
}

// tokenArgument returns the token itself; - stands for standard input.
func tokenArgument(argument string) (string, error) {
	text := argument
	if argument == "-" {
		read, err := io.ReadAll(io.LimitReader(os.Stdin, intake.MaxToken+3)) // a line break may follow
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		text = string(read)
	}
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return "", errors.New("the token is empty")
	case len(text) > intake.MaxToken:
		return "", fmt.Errorf("the token is longer than %d bytes", intake.MaxToken)
	}
	return text, nil
}

// distance says how far a time is from now, in the largest fitting unit.
func distance(at, now time.Time) string {
	d := at.Sub(now)
	size := d.Abs()
	text := fmt.Sprintf("%dd", size/(24*time.Hour))
	switch {
	case size < time.Minute:
		text = fmt.Sprintf("%ds", size/time.Second)
	case size < time.Hour:
		text = fmt.Sprintf("%dm", size/time.Minute)
	case size < 48*time.Hour:
		text = fmt.Sprintf("%dh", size/time.Hour)
	}
	if d < 0 {
		return text + " ago"
	}
	return "in " + text
}
