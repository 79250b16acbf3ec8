"""Applications: from a descriptor to attested modules that run, on nodes with untrusted agents.

>>> from broch.app.home import Home
>>> Home.find({"BROCH_HOME": "/tmp/broch"}).root.name
'broch'

The way through: :mod:`~broch.app.descriptor` reads ``app.toml``, :mod:`~broch.app.build` makes
images, :mod:`~broch.app.supervisor` starts nodes and lets modules in by the rules of
:mod:`~broch.app.deployer`; :mod:`~broch.app.agent` is what runs on each node.
"""
