// Package pbx is the switch.
package pbx
