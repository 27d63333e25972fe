package authserver

import (
	"fmt"
	"slices"

	"golang.org/x/text/language"
)

// Scope says in people's words what a scope allows. The consent and account pages
// show it; those of OpenID Connect have words already.
type Scope struct {
	Name        string `yaml:"name"`
	Description Text   `yaml:"description"` // completes "it will be able to …", by language: {en: see your orders, de: …}
}

const maxDescription = 200 // bytes

func (c *checker) scopes(scopes []Scope, owners map[string]string) {
	seen := make(map[string]bool)
	for i, scope := range scopes {
		at := fmt.Sprintf("scopes[%d]", i)
		switch {
		case seen[scope.Name]:
			c.error(at+".name", "%q is described twice", scope.Name)
		case owners[scope.Name] == "" && !slices.Contains(userScopes, scope.Name):
			c.error(at+".name", "%q belongs to no configured resource", scope.Name)
		}
		seen[scope.Name] = true
		if len(scope.Description) == 0 {
			c.error(at+".description", "is missing; for example {en: see your orders}")
		}
		for tag, text := range scope.Description {
			if _, err := language.Parse(tag); err != nil {
				c.error(at+".description", "%q is not a language such as en or de", tag)
			}
			if text == "" || len(text) > maxDescription {
				c.error(at+".description", "the text in %s has %d bytes; 1 to %d are allowed", tag, len(text), maxDescription)
			}
		}
	}
}
