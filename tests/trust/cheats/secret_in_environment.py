"""Look for a key among the variables."""

import os

print("key", os.environ.get("ANTHROPIC_API_KEY", ""))
