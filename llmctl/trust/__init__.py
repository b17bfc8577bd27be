"""The trust boundary: recipes, jobs and run folders may come from strangers.

`code` decides whether code that is not llmctl's may run, `names` which files a run folder may reach, `keys`
which servers get the user's key, and `limits` how large and how deep a file may be. Everything that such a
file says passes through here; docs/security.md says what is promised and what is not.
"""

from llmctl.trust.code import CodeRefusedError, allow_code, check_code, check_module, is_code_allowed
from llmctl.trust.keys import allow_host, check_options, key_for
from llmctl.trust.limits import check_yaml, parse_json, read_limited
from llmctl.trust.names import inside, open_plain, open_without_links, refuse_link
from llmctl.trust.permissions import Permissions, permissions

__all__ = [
    "CodeRefusedError",
    "Permissions",
    "allow_code",
    "allow_host",
    "check_code",
    "check_module",
    "check_options",
    "check_yaml",
    "inside",
    "is_code_allowed",
    "key_for",
    "open_plain",
    "open_without_links",
    "parse_json",
    "permissions",
    "read_limited",
    "refuse_link",
]
