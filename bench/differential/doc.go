// Package differential gives the same tokens, good, odd and broken, to our verifier's
// parser and to other libraries: its test fails where ours accepts what another refuses
// or reads other claims, and where another accepts what ours refuses for a reason that
// is not explained there.
package differential
