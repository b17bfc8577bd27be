"""Who may reach the explorer: origin, login, and clients that send too much, too little or too often."""
