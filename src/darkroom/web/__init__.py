"""The web page: the jobs of the command line in a browser. It holds no logic of its own: pages read artefacts and put orders into the queue."""
