package login

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// modules returns the side of text's QR code in modules, with the quiet zone, and the
// path of the dark ones; 0 for a text that is too long.
func modules(text string) (side int, dark string) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return 0, ""
	}
	const quiet = 4 // modules around the code (ISO/IEC 18004 §5.3.8)
	var path strings.Builder
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	return code.Size + 2*quiet, path.String()
}
