package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"authserver/internal/intake"
	"authserver/verifier"

	"github.com/spf13/cobra"
)

func newTokenCommand() *cobra.Command {
	var output string
	inspect := &cobra.Command{
		Use:   "inspect TOKEN|-",
		Short: "Show what a token says, without verifying it",
		Long: "Shows the header and the claims of a token. Nothing is verified and nothing is sent\n" +
			"anywhere. With - the token is read from standard input, where other users of the machine cannot see it.",
		Example: "  echo \"$TOKEN\" | authserver token inspect -",
		Args:    arguments(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			raw, err := tokenArgument(args[0])
			if err != nil {
				return err
			}
			return inspectToken(command.OutOrStdout(), raw, output)
		},
	}
	outputFlag(inspect, &output)
	var config verifier.Config
	verify := &cobra.Command{
		Use:   "verify TOKEN|- --issuer URL --audience ID",
		Short: "Verify an access token as a resource server would",
		Long: "Fetches the issuer's metadata and keys, verifies an access token offline and says what\n" +
			"is wrong with it. The token is not sent anywhere. Exits with 1 when it is not valid.",
		Example: "  echo \"$TOKEN\" | authserver token verify - --issuer http://localhost:8080 --audience http://localhost:8081",
		Args:    arguments(1),
		RunE: func(command *cobra.Command, args []string) error {
			if config.Issuer == "" || config.Audience == "" {
				return usageError{withHint(errors.New("--issuer and --audience are required"), "%s", command.Example)}
			}
			raw, err := tokenArgument(args[0])
			if err != nil {
				return err
			}
			return verifyToken(command.Context(), command.OutOrStdout(), config, raw)
		},
	}
	verify.Flags().StringVar(&config.Issuer, "issuer", "", "the issuer identifier that the token must have")
	verify.Flags().StringVar(&config.Audience, "audience", "", "the resource identifier that the token must be meant for")
	verify.Flags().StringVar(&config.JWKSURI, "jwks", "", "URL of the key set (found through the issuer's metadata)")
	return group("token", "Look into tokens", inspect, verify)
}

func tokenArgument(argument string) (string, error) {
	if argument != "-" {
		return argument, nil
	}
	text, err := io.ReadAll(io.LimitReader(os.Stdin, intake.MaxToken+2))
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// kinds are the typ values that are known here.
var kinds = map[string]string{
	"at+jwt":                    "access token (RFC 9068)",
	"rt+jwt":                    "refresh token, for the authorization server only",
	"client-authentication+jwt": "client assertion (RFC 7523)",
	"jwt":                       "JWT of no particular kind",
}

func inspectToken(out io.Writer, raw, output string) error {
	token, err := intake.Parse(raw)
	if err != nil {
		return withHint(fmt.Errorf("not a signed JWT in compact form: %w", err), "a token looks like eyJ....eyJ....abc, without spaces or quotes")
	}
	var header, claims map[string]any
	first, _, _ := strings.Cut(raw, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(first)
	if err == nil {
		err = intake.Decode(decoded, &header)
	}
	if err == nil {
		err = intake.Decode(token.Payload, &claims)
	}
	if err != nil {
		return fmt.Errorf("reading the token: %w", err)
	}
	if output == "json" {
		return json.NewEncoder(out).Encode(map[string]any{"verified": false, "header": header, "claims": claims})
	}
	kind := kinds[strings.TrimPrefix(strings.ToLower(token.Type), "application/")]
	if kind == "" {
		kind = "unknown"
	}
	fmt.Fprintf(out, "kind: %s\nNothing of this was verified.\n\nheader\n", kind)
	printMembers(out, header)
	fmt.Fprintln(out, "\nclaims")
	printMembers(out, claims)
	return nil
}

func printMembers(out io.Writer, members map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value, err := json.Marshal(members[name])
		if err != nil {
			continue
		}
		fmt.Fprintf(out, "  %-20s %s%s\n", name, value, explainTime(name, members[name]))
	}
}

// explainTime says when a NumericDate is.
func explainTime(name string, value any) string {
	seconds, ok := value.(float64)
	if !ok || !slices.Contains([]string{"iat", "exp", "nbf", "auth_time", "grant_exp"}, name) {
		return ""
	}
	at := time.Unix(int64(seconds), 0)
	if distance := time.Until(at).Round(time.Second); distance >= 0 {
		return fmt.Sprintf("  %s, in %s", at.UTC().Format(time.RFC3339), distance)
	} else {
		return fmt.Sprintf("  %s, %s ago", at.UTC().Format(time.RFC3339), -distance)
	}
}

func verifyToken(ctx context.Context, out io.Writer, config verifier.Config, raw string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	v, err := verifier.New(ctx, config)
	if err != nil {
		return err
	}
	claims, err := v.Verify(ctx, raw)
	if err != nil {
		return fmt.Errorf("the token is not valid here: %w", err)
	}
	fmt.Fprintf(out, "valid: signed by %s for %s\n", config.Issuer, config.Audience)
	fmt.Fprintf(out, "  subject  %s\n  client   %s\n  scope    %s\n  expires %s\n",
		claims.Subject, claims.ClientID, claims.Scope, explainTime("exp", float64(claims.Expires.Unix())))
	fmt.Fprintln(out, "Whether it was revoked is known to the issuer only: ask its introspection endpoint.")
	return nil
}
