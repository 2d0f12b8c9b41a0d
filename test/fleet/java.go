package fleet

import (
	"errors"
	"os/exec"
)

// JavaMain is the command that runs a class of examples/java-chat.
func JavaMain(class string) ([]string, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.New("java is not on PATH: install a JDK 17 or newer, and Maven")
	}
	lib, ok := above("examples/java-chat/target/lib")
	if !ok {
		return nil, errors.New("the example in Java was not built: run make java-tool")
	}
	classes, ok := above("examples/java-chat/target/classes")
	if !ok {
		return nil, errors.New("the example in Java was not built: run make java-tool")
	}
	return []string{java, "-XX:TieredStopAtLevel=1", "-cp", classes + ":" + lib + "/*", class}, nil
}
