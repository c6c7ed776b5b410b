from monkeyproof.cli.app import main

main()
