// Package micro measures single operations inside one process: their time and,
// what no other work on the machine disturbs, their allocations and instructions.
//
//	go test -run xxx -bench . -benchmem ./micro
//	go test ./micro                    fails when an operation allocates 10 % more than allocations.txt says,
//	                                   or takes 10 % more instructions than instructions.txt says
//	go test ./micro -update            writes both files
package micro
