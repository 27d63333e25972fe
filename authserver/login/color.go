package login

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// color is red, green and blue from 0 to 1, as sRGB has them.
type color [3]float64

var (
	black        = color{}
	white        = color{1, 1, 1}
	lightSurface = mustColor("#ffffff") // --surface in style.css
	darkSurface  = mustColor("#1b1e24")
)

// Contrast that WCAG 2.2 asks for: of text (§1.4.3), of what is no text (§1.4.11).
const (
	textContrast  = 4.5
	shapeContrast = 3
)

var colorForm = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

func parseColor(text string) (color, error) {
	if !colorForm.MatchString(text) {
		return color{}, fmt.Errorf("%q is not a colour such as %s", text, defaultColor)
	}
	n, err := strconv.ParseUint(text[1:], 16, 32)
	return color{float64(n>>16) / 255, float64(n>>8&255) / 255, float64(n&255) / 255}, err
}

func mustColor(text string) color {
	c, err := parseColor(text)
	if err != nil {
		panic(err)
	}
	return c
}

// String is the colour as #rrggbb.
func (c color) String() string {
	byteOf := func(f float64) int { return int(math.Round(f * 255)) }
	return fmt.Sprintf("#%02x%02x%02x", byteOf(c[0]), byteOf(c[1]), byteOf(c[2]))
}

// luminance is WCAG's relative luminance.
func (c color) luminance() float64 {
	linear := func(f float64) float64 {
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

// contrast is WCAG's contrast ratio, from 1 to 21.
func contrast(a, b color) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// towards mixes a part of another colour in.
func (c color) towards(other color, part float64) color {
	for i := range c {
		c[i] += (other[i] - c[i]) * part
	}
	return c
}

// readable is c, or the nearest shade of it that has the contrast on a surface.
func (c color) readable(surface color, least float64) color {
	end := black
	if contrast(surface, white) > contrast(surface, black) {
		end = white
	}
	shade := c
	for part := 0.0; contrast(mustColor(shade.String()), surface) < least && part <= 1; part += 0.02 {
		shade = c.towards(end, part)
	}
	return shade
}

// on is black or white, whichever is easier to read on c.
func (c color) on() color {
	if contrast(c, white) >= textContrast || contrast(c, white) > contrast(c, black) {
		return white
	}
	return color{0.07, 0.08, 0.1}
}

// palette is the brand's colour as the pages use it.
type palette struct {
	light, dark scheme
}

type scheme struct{ button, onButton, hover, link color }

func newPalette(brand string) (palette, error) {
	c, err := parseColor(brand)
	if err != nil {
		return palette{}, err
	}
	return palette{light: newScheme(c, lightSurface), dark: newScheme(c, darkSurface)}, nil
}

func newScheme(brand, surface color) scheme {
	button := brand.readable(surface, shapeContrast)
	on := button.on()
	// A middling colour is made lighter or darker until the text on it can be read.
	button = button.readable(on, textContrast)
	hover := button.towards(black, 0.12)
	if on != white {
		hover = button.towards(white, 0.15)
	}
	return scheme{button: button, onButton: on, hover: hover, link: brand.readable(surface, textContrast+0.3)}
}

func (p palette) css() string {
	rule := func(s scheme) string {
		return fmt.Sprintf(":root{--button:%s;--on-button:%s;--hover:%s;--link:%s}", s.button, s.onButton, s.hover, s.link)
	}
	return rule(p.light) + "@media (prefers-color-scheme:dark){" + rule(p.dark) + "}\n"
}
