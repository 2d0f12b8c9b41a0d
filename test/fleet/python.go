package fleet

import (
	"errors"
	"os/exec"
)

// pythonPackages are those that examples/python-chat/requirements.txt locks.
const pythonPackages = "python-chat"

// PythonScript is the command that runs a script of examples/, such as
// "python-chat/chat.py", with the packages that are locked for it. The process
// is Python itself: env becomes it.
func PythonScript(script string) ([]string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return nil, errors.New("python3 is not on PATH: install it, with pip")
	}
	path, err := example(script)
	if err != nil {
		return nil, err
	}
	packages, ok := above(".tools/" + pythonPackages)
	if !ok {
		return nil, errors.New("the Python packages of the examples were not fetched: run make python-tool")
	}
	return []string{"env", "PYTHONPATH=" + packages, "PYTHONDONTWRITEBYTECODE=1", python, path}, nil
}

// PythonChat is what ChatOptions.Command is for examples/python-chat.
func PythonChat() ([]string, error) { return PythonScript("python-chat/chat.py") }
