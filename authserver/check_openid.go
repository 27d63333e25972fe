package authserver

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// clientOpenID checks what a client registers for OpenID Connect.
func (c *checker) clientOpenID(at string, client Client) {
	switch client.SubjectType {
	case "", subjectPublic, subjectPairwise:
	default:
		c.error(at+".subject_type", "%q is unknown; allowed are %s, %s", client.SubjectType, subjectPublic, subjectPairwise)
	}
	if age := client.DefaultMaxAge; age != nil && (*age < 0 || *age > math.MaxInt32) {
		c.error(at+".default_max_age", "%d is not a number of seconds from 0 to %d", *age, math.MaxInt32)
	}
	if uri := client.SectorIdentifierURI; uri != "" && !strings.HasPrefix(uri, "https://") { // OpenID Connect Registration §5
		c.error(at+".sector_identifier_uri", "%q is not an https URL", uri)
	} else if _, ok := client.sector(); !ok {
		c.error(at+".subject_type", "is pairwise, and the redirect_uris have no host or several: say with sector_identifier_uri whose subjects they are")
	}
}

// signingAlgorithms checks that there are keys for what clients want signed.
func (c *checker) signingAlgorithms(clients []Client, known []string) {
	for i, client := range clients {
		at := "clients[" + strconv.Itoa(i) + "]."
		for key, algorithm := range map[string]string{
			"id_token_signed_response_alg": client.IDTokenSignedResponseAlg, "userinfo_signed_response_alg": client.UserInfoSignedResponseAlg,
		} {
			if algorithm != "" && !slices.Contains(known, algorithm) {
				c.error(at+key, "%q is not one of keys.algorithms (%s)", algorithm, strings.Join(known, ", "))
			}
		}
	}
}

// CheckAlgorithms returns the mistakes in the part of c that is about keys of the
// given algorithms, the default first.
func (c Config) CheckAlgorithms(known []string) []Problem {
	var check checker
	check.signingAlgorithms(c.Clients, known)
	return check.problems
}
