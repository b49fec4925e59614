"""Array replication (requirements A6): arrays move the bytes of groups of volumes; leeward decides and watches."""
