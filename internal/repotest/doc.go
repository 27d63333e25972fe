// Package repotest holds the rules of the house as tests: which package may
// import which, how long a file may be, what no file may contain, and that what
// the documents name exists. It has nothing to import.
package repotest
