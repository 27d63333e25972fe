package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"authserver/authserver"
	"authserver/keys"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newKeyRotateCommand() *cobra.Command {
	var request authserver.KeyRotate
	var plan bool
	command := &cobra.Command{
		Use:   "rotate [RING...]",
		Short: "Let the next keys take over, in order and unnoticed",
		Long: "Lets the next key of each ring take over as soon as every verifier can know it; without rings (the\n" +
			"algorithms, and refresh) all of them. --plan says what would happen and changes nothing. --now does\n" +
			"not wait, and says first whom that may break.",
		Example: "  authserver key rotate --plan\n  authserver key rotate ES256 --now",
		Args:    cobra.ArbitraryArgs,
	}
	o := operated(command).breaking()
	command.Flags().BoolVar(&plan, "plan", false, "print every transition with its time and change nothing")
	command.Flags().BoolVar(&request.Now, "now", false, "at once, whomever it breaks")
	command.Flags().StringVar(&request.Reason, "reason", "", "why, for the key log")
	command.RunE = func(_ *cobra.Command, args []string) error {
		request.Rings = args
		var answer keys.RotationPlan
		if plan || request.Now {
			if err := o.call("/key/plan", request, &answer); err != nil {
				return err
			}
		}
		if plan {
			return o.print(answer, func(w io.Writer) {
				fmt.Fprintln(w, "This would happen; nothing was changed.")
				showRotations(w, answer)
			})
		}
		if request.Now {
			if err := o.confirm("%s Rotate now?", consequences(answer)); err != nil {
				return err
			}
		}
		if err := o.call("/key/rotate", request, &answer); err != nil {
			return err
		}
		return o.print(answer, func(w io.Writer) { showRotations(w, answer) })
	}
	return command
}

// consequences says whom a rotation may break.
func consequences(plan keys.RotationPlan) string {
	var texts []string
	for _, r := range plan.Rotations {
		if r.Breaks != "" {
			texts = append(texts, fmt.Sprintf("%s may break %s.", printable(r.Ring), printable(r.Breaks)))
		}
	}
	if len(texts) == 0 {
		return "It breaks nobody."
	}
	return strings.Join(texts, " ")
}

func showRotations(w io.Writer, plan keys.RotationPlan) {
	for _, r := range plan.Rotations {
		to := "a key that is being made"
		if r.To != "" {
			to = short(r.To)
		}
		switch {
		case r.At.IsZero():
			fmt.Fprintf(w, "%s rotated meanwhile: %s signs\n", printable(r.Ring), to)
		case r.From == "":
			fmt.Fprintf(w, "%s: %s signs from %s on\n", printable(r.Ring), to, minute(r.At))
		default:
			fmt.Fprintf(w, "%s: %s takes over from %s at %s\n", printable(r.Ring), to, short(r.From), minute(r.At))
		}
		if r.Breaks != "" {
			fmt.Fprintf(w, "  it may break %s\n", printable(r.Breaks))
		}
	}
	rows := [][]string{{"AT", "RING", "KID", "FROM", "TO", "WHY"}}
	for _, t := range plan.Transitions {
		if !slices.ContainsFunc(plan.Rotations, func(r keys.Rotation) bool { return r.Ring == t.Ring }) {
			continue // it goes on as before
		}
		kid := short(t.KeyID)
		if kid == "" {
			kid = "(new)"
		}
		rows = append(rows, []string{minute(t.At), t.Ring, kid, t.From, t.To, t.Why})
	}
	fmt.Fprintln(w)
	table(w, rows...)
}

func newKeyImportCommand() *cobra.Command {
	var request authserver.KeyImport
	command := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in a private key that was made elsewhere, as the next one to sign",
		Long: "Takes in a private key (PEM or JWK; - is standard input) as the next key of its ring: it is\n" +
			"published now and signs when it has been published for as long as any other. It takes the place of\n" +
			"the key that waits to be the next one, which never signs then. While nothing signs that means to wait\n" +
			"longer, so it asks first. An encrypted PEM asks for its passphrase. Weak keys, and keys that were used\n" +
			"here before, are refused.",
		Example: "  authserver key import key.pem --ring ES256",
		Args:    arguments(1),
	}
	o := operated(command).breaking()
	command.Flags().StringVar(&request.Ring, "ring", "", "the algorithm that it is to sign with; told from the key where only one is usual")
	command.Flags().StringVar(&request.Reason, "reason", "", "why, for the key log")
	command.RunE = func(command *cobra.Command, args []string) error {
		private, err := readPrivateKey(args[0], command)
		if err != nil {
			return err
		}
		if request.Ring == "" {
			request.Ring = usualAlgorithm(private)
		}
		encoded, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return errors.New("the key is of a kind that cannot be handed over")
		}
		request.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
		var list authserver.KeyList
		if err := o.call("/key/list", struct{}{}, &list); err != nil {
			return err
		}
		replaced, until := replacedIn(list, request.Ring)
		if until != "" {
			if err := o.confirm("Nothing signs for %s%s, when key %s would. The imported key takes its place, and is waited for from now on. Import it?",
				printable(request.Ring), until, short(replaced)); err != nil {
				return err
			}
		}
		var k keys.KeyView
		if err := o.call("/key/import", request, &k); err != nil {
			return err
		}
		return o.print(k, func(w io.Writer) {
			fmt.Fprintf(w, "key %s is published in %s", k.KeyID, k.Ring)
			if replaced != "" {
				fmt.Fprintf(w, " in the place of %s, which never signs", short(replaced))
			}
			if k.Next != nil {
				fmt.Fprintf(w, "; %s %s", k.Next.To, minute(k.Next.At))
			}
			fmt.Fprintln(w)
		})
	}
	return command
}

// replacedIn returns the key in whose place an imported one comes, if there is one, and
// until when nothing signs if it is waited for.
func replacedIn(list authserver.KeyList, ring string) (kid, until string) {
	for _, r := range list.Rings {
		for _, k := range r.Keys {
			if r.Name == ring && k.State == "pending" && k.KeyID != "" {
				_, until = nothingSigns(r)
				return k.KeyID, until
			}
		}
	}
	return "", ""
}

func readPrivateKey(name string, command *cobra.Command) (crypto.Signer, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(command.InOrStdin(), maxSecretFile))
	} else {
		text, _, err = readFile(name, maxSecretFile)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	private, err := keys.ParsePrivateKey(text, func() ([]byte, error) {
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return nil, errors.New("it is encrypted, and there is no terminal to ask for the passphrase at")
		}
		typed, err := askSecretly(os.Stdin, command.ErrOrStderr(), "Passphrase: ")
		if err != nil {
			return nil, err
		}
		return []byte(typed[0]), nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	return private, nil
}

// usualAlgorithm is what keys of a kind usually sign with; the server refuses what
// does not fit.
func usualAlgorithm(private crypto.Signer) string {
	switch key := private.(type) {
	case *rsa.PrivateKey:
		return "RS256"
	case ed25519.PrivateKey:
		return "EdDSA"
	case *ecdsa.PrivateKey:
		return map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
	}
	return ""
}
