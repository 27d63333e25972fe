package verifier_test

import (
	"log/slog"
	"testing"

	"authserver/verifier"
)

// What a verification costs; `go run ./verify` in bench compares it with others.
func BenchmarkVerify(b *testing.B) {
	for name, cache := range map[string]int{"first look": -1, "second look": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			i := newIssuer(b)
			v, err := verifier.New(b.Context(), verifier.Config{Issuer: i.url, Audience: audience, CacheBytes: cache, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			token := i.sign(b, "at+jwt", "1", nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
