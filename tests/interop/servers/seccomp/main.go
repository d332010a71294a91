// Prints the seccomp profile that containerd gives to a container with the capabilities named as arguments, as the runtime specification has it.
package main

import (
	"encoding/json"
	"os"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func main() {
	given := os.Args[1:]
	spec := specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: given}}}
	if err := json.NewEncoder(os.Stdout).Encode(seccomp.DefaultProfile(&spec)); err != nil {
		panic(err)
	}
}
