package keys

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"

	"github.com/go-jose/go-jose/v4"
	"github.com/youmark/pkcs8"
)

// maxPrivateKeyFile is some ten times what an RSA key of 4096 bits has as a JWK.
const maxPrivateKeyFile = 64 << 10

// ParsePrivateKey reads a private key from the text of a file: PEM (PKCS#8,
// PKCS#1, SEC 1), encrypted PKCS#8 (RFC 5958, PBES2), or a private JWK
// (RFC 7517). passphrase is called when one is needed; nil: there is none. Errors
// hold no part of the file.
func ParsePrivateKey(text []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if len(text) > maxPrivateKeyFile {
		return nil, refuse("the file is larger than any private key")
	}
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		return parseJWK(trimmed)
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, refuse("the file holds no private key; it is PEM (PKCS#8, PKCS#1 or SEC 1) or a private JWK")
		}
		switch block.Type {
		case "CERTIFICATE", "PUBLIC KEY", "EC PARAMETERS":
			continue // stand beside a key in many files
		}
		return parseBlock(block, passphrase)
	}
}

func parseBlock(block *pem.Block, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if block.Headers["DEK-Info"] != "" { // RFC 1423: its key derivation is one round of MD5
		return nil, refuse("the key is encrypted in the old way of OpenSSL, which protects nothing; convert it: openssl pkcs8 -topk8 -in FILE -out NEW")
	}
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return decrypt(block.Bytes, passphrase)
	default:
		return nil, refuse("the file holds a %q, which is no private key of PKCS#8, PKCS#1 or SEC 1", block.Type)
	}
	if err != nil { // the cause could hold a part of the key
		return nil, refuse("the %s in the file is damaged, or of a kind that is not known", block.Type)
	}
	return signerOf(parsed)
}

func decrypt(der []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if passphrase == nil {
		return nil, refuse("the key is encrypted and there is no passphrase")
	}
	phrase, err := passphrase()
	if err != nil {
		return nil, err
	}
	defer clear(phrase)
	parsed := openPKCS8(der, phrase)
	if parsed == nil {
		return nil, refuse("the encrypted key does not open: wrong passphrase, or damaged, or not in the way that `openssl pkcs8 -topk8` encrypts")
	}
	return signerOf(parsed)
}

// openPKCS8 returns nil for what it cannot open. The library panics on some files
// that are damaged.
func openPKCS8(der, phrase []byte) (parsed any) {
	defer func() {
		if recover() != nil {
			parsed = nil
		}
	}()
	if len(phrase) == 0 {
		return nil
	}
	parsed, _, err := pkcs8.ParsePrivateKey(der, phrase)
	if err != nil {
		return nil
	}
	return parsed
}

func parseJWK(text []byte) (crypto.Signer, error) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(text, &jwk); err != nil {
		return nil, refuse("the JWK is damaged, or of a kind that is not known")
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return nil, refuse("the JWK has use %q; a key that signs has sig", jwk.Use)
	}
	if jwk.IsPublic() {
		return nil, refuse("the JWK has only the public half")
	}
	return signerOf(jwk.Key)
}

func signerOf(parsed any) (crypto.Signer, error) {
	if key, ok := parsed.(crypto.Signer); ok {
		return key, nil
	}
	return nil, refuse("the key does not sign")
}
