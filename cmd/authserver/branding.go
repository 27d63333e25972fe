package main

import (
	"fmt"

	"authserver/authserver/login"
)

const maxLogoFile = 1 << 20 // bytes that are read; package login has the smaller limit and the words

// pages makes the pages that people see. With an error comes the key that it is about.
func (b brandingConfig) pages() (pages *login.Pages, key string, err error) {
	branding := login.Branding{Name: b.Name, Color: b.Color}
	if b.LogoFile != "" {
		if branding.Logo, _, err = readFile(b.LogoFile, maxLogoFile); err != nil {
			return nil, "logo_file", fmt.Errorf("cannot be read: %w", err)
		}
	}
	if pages, err = login.New(branding); err != nil {
		return nil, "", err
	}
	return pages, "", nil
}

func (c *config) checkBranding(d *decoder) {
	_, key, err := c.Branding.pages()
	if err != nil {
		d.mistake(join("branding", key, "."), "%v", err)
	}
}
