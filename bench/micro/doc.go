// Package micro measures single operations inside one process: their time and,
// what no other work on the machine disturbs, their allocations.
//
//	go test -run xxx -bench . -benchmem ./micro
//	go test ./micro                    fails when an operation allocates 10 % more than allocations.txt says
//	go test ./micro -update            writes allocations.txt
//	make instructions                  fails when one takes 10 % more instructions than instructions.txt says
package micro
