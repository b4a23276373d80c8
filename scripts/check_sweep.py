"""Is each run of a sweep what it is alone?"""

from jaxmlp.commands.check_sweep import main

if __name__ == "__main__":
    main()
