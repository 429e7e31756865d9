pytest_plugins = ["harness.testing.pytest_plugin"]
